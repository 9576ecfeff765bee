"""Encrypted files: the same records with the key, headers without; moved, changed or mixed they are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import media_samples as samples
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealed_samples import (
    KEY,
    KEYS,
    LOG,
    MACRO,
    MANIFEST,
    META,
    sealed_archive,
    sealed_block,
    sealed_manifest,
    sealing,
)

from mover.encryption.cipher import NO_KEYS, DataKey, Keys
from mover.errors import EncryptionKeyError, FormatError, IntegrityError
from mover.kernel import Order, PackedFrame, frame_room, ob_crc64, pack_frames
from mover.media.archive import ArchiveBlockMeta, parse_block
from mover.media.frames import FrameWriter, end_mark, iter_frames, read_frame
from mover.media.header import Compressor, DataType
from mover.media.inspect import describe, records
from mover.media.macro import MACRO_SUFFIX, macro_prefix, parse_macro
from mover.media.manifest import ManifestReader, ManifestWriter, read_manifest
from mover.media.sealed import Opening, place_of
from mover.media.sealed_log import opened


def opening(path: str, keys: Keys = KEYS) -> Opening:
    return Opening.of(path, keys)


def frames_of(payloads: list[bytes], path: str = META) -> bytes:
    writer = FrameWriter(DataType.META, 4 << 20, sealing=sealing(path))
    for payload in payloads:
        writer.add(payload)
        writer.flush()
    return writer.finish()


@given(st.lists(st.binary(min_size=1, max_size=9000), max_size=4))
def test_frames_come_back_with_the_key(payloads: list[bytes]) -> None:
    data = frames_of(payloads)
    assert [frame.data() for frame in iter_frames(data, opening=opening(META))] == payloads
    assert not any(len(payload) > 20 and payload in data for payload in payloads)
    # Without the key everything but the content is checked.
    locked = list(iter_frames(data))
    assert [frame.header.data_length for frame in locked] == [len(payload) for payload in payloads]
    for frame in locked:
        with pytest.raises(EncryptionKeyError, match=KEY.name):
            frame.data()


def test_frames_that_changed_places_are_refused() -> None:
    first, second, end = (frames_of([b"a" * 100, b"b" * 100])[start : start + 4096] for start in (0, 4096, 8192))
    swapped = iter_frames(second + first + end, opening=opening(META))
    with pytest.raises(IntegrityError, match="place"):
        [frame.data() for frame in swapped]
    elsewhere = META.replace("backup_1", "backup_2")
    with pytest.raises(IntegrityError, match="place"):
        [frame.data() for frame in iter_frames(first + second + end, opening=opening(elsewhere))]


def packed(index: int, length: int, compressor: int, order: Order, path: str = MACRO) -> tuple[bytes, bytes]:
    """(plain frame, the same encrypted in place)."""
    block = samples.block_bytes(index, length)
    prefix = macro_prefix(samples.block_meta(index, length).pack(), len(block))
    buffer = bytearray(frame_room(length + 256) + 4096)
    (frame,) = pack_frames(
        buffer, 0, [(prefix, block, order)], MACRO_SUFFIX, compressor=compressor, level=1, keep_permille=1000
    )
    plain = bytes(buffer[: frame.length])
    sealed = sealing(path).in_place(memoryview(buffer), 0, frame)
    assert isinstance(sealed, PackedFrame)
    return plain, bytes(buffer[: sealed.length])


@given(st.integers(1, 20_000), st.sampled_from([Compressor.NONE, Compressor.LZ4, Compressor.ZSTD_1_3_8]))
def test_a_macro_frame_is_encrypted_and_decrypted_where_it_is(length: int, compressor: int) -> None:
    plain, sealed = packed(3, length, compressor, Order.COMPRESS)
    assert len(sealed) % 4096 == 0
    frame = read_frame(sealed, offset=8192, data_type=DataType.MACRO_DATA, opening=opening(MACRO))
    assert parse_macro(frame.data()).block == samples.block_bytes(3, length)
    buffer = bytearray(sealed)
    # Whatever its sub number and its offset: they are found only after it was encrypted.
    found = opening(MACRO[:-1] + "5").in_place(memoryview(buffer), 40960)
    assert bytes(buffer[:found]) == plain


@given(st.data())
def test_no_bit_of_a_macro_frame_may_change(data: st.DataObject) -> None:
    _, sealed = packed(3, 500, Compressor.NONE, Order.KEEP)
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    damaged = bytearray(sealed)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError):
        opening(MACRO).in_place(memoryview(damaged), 0)


def test_a_frame_whose_checksums_were_made_to_fit_is_refused() -> None:
    """What only a key can tell: the payload and its checksum were both replaced."""
    _, one = packed(3, 500, Compressor.NONE, Order.KEEP)
    header = read_frame(one, offset=0).header
    forged = bytearray(one)
    forged[60] ^= 1
    fitting = dataclasses.replace(header, data_checksum=ob_crc64(forged[48 : 48 + header.data_zlength]))
    forged[:48] = fitting.pack()
    read_frame(forged, offset=0)
    with pytest.raises(IntegrityError, match="were changed"):
        opening(MACRO).in_place(memoryview(forged), 0)


def test_a_plain_frame_in_an_encrypted_set_is_refused() -> None:
    plain, sealed = packed(3, 500, Compressor.NONE, Order.KEEP)
    with pytest.raises(FormatError, match="not encrypted"):
        opening(MACRO).in_place(memoryview(bytearray(plain)), 0)
    other = MACRO.replace("macro_block_1", "macro_block_2")
    with pytest.raises(IntegrityError, match="place"):
        opening(other).in_place(memoryview(bytearray(sealed)), 0)


def manifest(sealed: bool = True, **facts: Any) -> bytes:
    if sealed:
        return sealed_manifest(**facts)
    writer = ManifestWriter(samples.facts(**facts))
    writer.add_blocks(samples.manifest_blocks())
    writer.add_file("1/data/backup_set_1/backup_1/meta_file_0", 8192, b"m" * 16)
    return writer.finish()


def test_a_manifest_with_and_without_its_key() -> None:
    plain, data = manifest(sealed=False), manifest()
    known = read_manifest(data, opening(MANIFEST))
    assert known.blocks == read_manifest(plain).blocks
    assert known.root == read_manifest(plain).root
    assert known.facts.key_id == KEY.name
    assert not known.facts.readable_by_oceanbase
    locked = read_manifest(data, locked=True)
    assert (locked.blocks, locked.files, locked.facts) == ((), known.files, known.facts)
    with pytest.raises(EncryptionKeyError, match=KEY.name):
        read_manifest(data)
    assert not any(row.digest in data for row in known.blocks), "digests of blocks tell what is in them"
    assert known.root.digest not in data


def test_facts_and_files_of_an_encrypted_manifest_can_not_be_exchanged() -> None:
    """They are readable by everybody, and writable only by who has the key."""
    facts_end = next(iter_frames(manifest())).size
    data, other = manifest(), manifest(end_scn=1)
    assert len(data) == len(other)
    ManifestReader(opening(MANIFEST)).feed(data)
    with pytest.raises(IntegrityError):
        read_manifest(other[:facts_end] + data[facts_end:], opening(MANIFEST))
    with pytest.raises(FormatError, match="a plain frame"):
        plain = manifest(sealed=False)
        read_manifest(plain[:facts_end] + data[facts_end:], opening(MANIFEST))
    with pytest.raises(FormatError, match="an encrypted frame"):
        plain = manifest(sealed=False)
        read_manifest(data[:facts_end] + plain[next(iter_frames(plain)).size :], opening(MANIFEST))


META_OF_BLOCK = ArchiveBlockMeta(1000, 3, 0xABCDEF, 11, 12, 13, 14, 15, 4711)


def log_block(payload: bytes, offset: int, meta: ArchiveBlockMeta = META_OF_BLOCK) -> bytes:
    return sealed_block(payload, offset, meta)


@given(st.binary(max_size=3000), st.integers(0, 1 << 26))
def test_an_archive_block_comes_back_with_the_key(payload: bytes, offset: int) -> None:
    block = parse_block(log_block(payload, offset), offset=offset, base_offset=offset)
    assert block.meta.accum_checksum == 0
    plain = opened(block, opening(LOG))
    assert bytes(plain.payload) == payload
    assert plain.meta.accum_checksum == META_OF_BLOCK.accum_checksum
    assert plain.end == block.end or plain.meta.total_length == block.meta.total_length
    for keys in (None, opening(LOG, NO_KEYS)):
        with pytest.raises(EncryptionKeyError, match=KEY.name):
            opened(block, keys)


def test_an_archive_block_is_bound_to_file_offset_and_meta() -> None:
    data = log_block(b"log" * 50, 244)
    block = parse_block(data, offset=244, base_offset=244)
    with pytest.raises(IntegrityError, match="place"):
        opened(dataclasses.replace(block, offset=500), opening(LOG))
    with pytest.raises(IntegrityError, match="place"):
        opened(block, opening(LOG[:-1] + "3"))
    with pytest.raises(IntegrityError, match="place"):
        later = dataclasses.replace(block.meta, max_log_id=99)
        opened(dataclasses.replace(block, meta=later), opening(LOG))
    with pytest.raises(FormatError):
        opened(dataclasses.replace(block, meta=dataclasses.replace(block.meta, accum_checksum=5)), opening(LOG))


def test_inspect_shows_headers_and_the_key_and_with_it_the_content() -> None:
    _, sealed = packed(3, 500, Compressor.NONE, Order.KEEP)
    data = sealed + end_mark()
    for path, content in ((MACRO, data), (MANIFEST, manifest()), (LOG, sealed_archive())):
        said = describe(path, content, strict=True)
        assert said["ok"], said
        assert said["encrypted_with"] == KEY.name
        known = describe(path, content, strict=True, keys=KEYS)
        assert known["ok"], known
        assert "encrypted_with" not in known
    (row,) = records(MACRO, data)
    assert (row["record"], row["raw_bytes"], row["encrypted_with"]) == ("encrypted_frame", 575, KEY.name)
    (row,) = records(MACRO, data, keys=KEYS)
    assert row["meta"]["block_index"] == 3
    with pytest.raises(EncryptionKeyError):
        list(records(MACRO, data, keys=Keys({b"87654321": DataKey(b"87654321", bytes(32))})))


def test_outside_of_a_tree_there_is_no_place() -> None:
    with pytest.raises(FormatError):
        place_of("/tmp/macro_block_1.0")
    assert place_of(f"/mnt/backup/{MACRO}") == place_of(MACRO) == place_of(MACRO[:-1] + "17")
    assert place_of(META) != place_of(META.replace("seekdb/1/", "seekdb/2/"))
