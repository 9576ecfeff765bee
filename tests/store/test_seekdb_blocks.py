"""block_file reading, the spool and the image map, on files made here."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import pytest

from mover.errors import ConfigError, SourceError
from mover.kernel import ob_crc64
from mover.store.base import MACRO_BLOCK_SIZE, BlockIdentity
from mover.store.seekdb.blocks import BlockReader, parse_header
from mover.store.seekdb.image import ImageMap, identity_mark
from mover.store.seekdb.spool import Spool
from mover.store.seekdb.store import capacity, in_mebibytes, open_seekdb


def data_block(tablet: int, version: int, sequence: int, size: int = 5000) -> bytes:
    """A block of kind 1 with a valid checksum, followed by what an earlier owner left there."""
    sstable = struct.pack("<IHHQqq12iq", 0, 2, 1007, tablet, version, sequence, *([0] * 12), 77)
    payload = sstable + b"r" * (size - len(sstable))
    header = struct.pack("<iiiiiI", 24, 1, 1001, 1, len(payload), ob_crc64(payload) & 0xFFFFFFFF)
    return (header + payload).ljust(MACRO_BLOCK_SIZE, b"\xee")


def shared_block(content: bytes) -> bytes:
    return (struct.pack("<iiiiiI", 24, 1, 1001, 7, 0, 0).ljust(4096, b"\0") + content).ljust(MACRO_BLOCK_SIZE, b"\0")


@pytest.fixture
def block_file(tmp_path: Path) -> Path:
    path = tmp_path / "block_file"
    with path.open("wb") as file:
        file.truncate(64 * MACRO_BLOCK_SIZE)
        for index, block in ((0, b"super"), (3, data_block(200001, 9, 4)), (40, shared_block(b"meta"))):
            file.seek(index * MACRO_BLOCK_SIZE)
            file.write(block)
    return path


async def test_only_written_blocks_are_looked_at(block_file: Path) -> None:
    reader = BlockReader(block_file)
    written = [index for part in await reader.written() for index in part]
    assert {3, 40} <= set(written)
    assert min(written) >= 2
    assert len(written) == len(set(written)) < 62
    headers = await reader.headers(range(2, 64))
    assert [(h.block_index, h.kind, h.tablet_id) for h in headers] == [(3, 1, 200001), (40, 7, 0)]
    assert headers[0].read_length == 8192
    assert headers[1].read_length == MACRO_BLOCK_SIZE
    await reader.aclose()
    await reader.aclose()


async def test_blocks_are_verified_and_known_by_header_or_bytes(block_file: Path) -> None:
    reader = BlockReader(block_file)
    buffer = memoryview(mmap.mmap(-1, MACRO_BLOCK_SIZE))
    (data, shared) = await reader.headers([3, 40])
    image = await reader.read(3, buffer, data.read_length)
    assert image.ok
    assert (
        image.identity == data.identity == BlockIdentity(3, 1, 5024, 200001, 9, 4, image.identity.payload_checksum, 77)
    )
    first = await reader.read(40, buffer, shared.read_length)
    with block_file.open("r+b") as file:
        file.seek(40 * MACRO_BLOCK_SIZE + 8192)
        file.write(b"appended")
        file.seek(3 * MACRO_BLOCK_SIZE + 3000)
        file.write(b"damage")
    second = await reader.read(40, buffer)
    assert first.identity.payload_checksum == second.identity.payload_checksum == 0
    assert first.digest != second.digest
    assert second.identity.used_length == 8200
    damaged = await reader.read(3, buffer)
    assert not damaged.ok
    assert "checksum" in damaged.reason
    with pytest.raises(SourceError, match="ends inside block 64"):
        await reader.read(64, buffer)
    await reader.aclose()


def test_header_pages_that_are_none() -> None:
    assert parse_header(2, bytes(4096)) is None
    assert parse_header(2, b"\xff" * 4096) is None
    broken = bytearray(data_block(1, 1, 1)[:4096])
    broken[24 + 6] ^= 1  # sstable magic
    assert parse_header(2, bytes(broken)) is None


def test_block_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        BlockReader(tmp_path / "none")


@pytest.mark.parametrize("memory", [0, 25, 1 << 20])
def test_spool_gives_back_what_it_got_from_memory_or_disk(tmp_path: Path, memory: int) -> None:
    spool = Spool(tmp_path, memory)
    contents = [bytes([65 + i]) * (10 + i) for i in range(6)]
    for i, content in enumerate(contents):
        spool.add(BlockIdentity(i, 7, len(content)), bytes([i]), memoryview(content))
    assert len(spool) == 6
    assert spool.bytes_held == sum(map(len, contents))
    assert list(tmp_path.iterdir()) == [], "the overflow file has no name"
    buffer = memoryview(bytearray(100))
    for i, content in enumerate(contents):
        identity, digest = spool.read_into(i, buffer)
        assert (identity.block_index, digest) == (i, bytes([i]))
        assert bytes(buffer[: identity.used_length]) == content
    spool.close()
    assert len(spool) == 0
    spool.add(BlockIdentity(1, 7, 3), b"d", memoryview(b"abc"))
    spool.read_into(0, buffer)
    assert bytes(buffer[:3]) == b"abc"
    spool.close()


def test_spool_without_room_is_a_source_error(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "missing", 0)
    with pytest.raises(SourceError, match="cannot spool"):
        spool.add(BlockIdentity(1, 7, 3), b"d", memoryview(b"abc"))


def test_image_map_tells_content_apart() -> None:
    image = ImageMap()
    one = BlockIdentity(7, 1, 100, 5, 6, 7, 8)
    image.proven(one)
    assert image.has(7, identity_mark(one))
    for other in (
        BlockIdentity(7, 1, 101, 5, 6, 7, 8),
        BlockIdentity(7, 1, 100, 5, 6, 8, 8),
        BlockIdentity(7, 1, 100, 5, 6, 7, 9),
    ):
        assert not image.has(7, identity_mark(other))
    assert not image.has(1000, identity_mark(one))
    assert image.yielded_blocks() == [7]
    image.forget(7)
    image.forget(5000)
    assert image.yielded_blocks() == []
    assert image.kind(7) == image.kind(5000) == 0


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("file:///x", "not a seekdb source"),
        ("seekdb://root:pw@host/x", "three slashes"),
        ("seekdb:///", "base directory"),
        ("seekdb:///nowhere", "not a seekdb base directory"),
        ("seekdb:///x?password=pw", "unknown option 'password'"),
        ("seekdb:///x?colour=red", "unknown option 'colour'"),
    ],
)
def test_source_urls_that_cannot_be_used(url: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        open_seekdb(url)
    assert "pw" not in str(caught.value.as_json())


def test_sizes_in_the_engines_spelling() -> None:
    assert [capacity(text) for text in ("2G", "64M", "0M", "1T", "512", "", "x", "-1G")] == [
        2 << 30,
        64 << 20,
        0,
        1 << 40,
        512,
        0,
        0,
        0,
    ]
    assert capacity(in_mebibytes(25319803699)) >= 25319803699


def test_the_user_of_the_settings_signs_in_where_the_url_names_nobody(tmp_path: Path) -> None:
    for directory in ("sstable", "slog/sys", "redo/sys/log_stream/log/0", "redo/sys/log_stream/meta/0"):
        (tmp_path / "store" / directory).mkdir(parents=True)
    (tmp_path / "store/sstable/block_file").touch()
    assert "backup_user@" in repr(open_seekdb(f"seekdb://{tmp_path}", user="backup_user").catalog)
    assert "other@" in repr(open_seekdb(f"seekdb://{tmp_path}?user=other", user="backup_user").catalog)
