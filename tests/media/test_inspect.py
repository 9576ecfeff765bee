"""What inspect says, and that no bytes whatever make it raise anything but our own errors."""

from __future__ import annotations

import json

import media_samples as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.errors import IntegrityError
from mover.media.inspect import describe, records, sniff
from mover.media.layout import FileKind

SAMPLES = made.samples()


@pytest.mark.parametrize("name", SAMPLES)
def test_everything_said_is_json(name: str) -> None:
    path, data = SAMPLES[name]
    for row in records(path, data):
        assert json.loads(json.dumps(row)) == row
    found = describe(path, data)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("name", SAMPLES)
def test_pieces_make_no_difference(name: str) -> None:
    path, data = SAMPLES[name]
    pieces = [data[i : i + 100] for i in range(0, len(data), 100)]
    assert list(records(path, pieces)) == list(records(path, data))
    assert describe(path, iter(pieces)) == describe(path, data)
    assert describe(None, iter(pieces))["records"] == describe(path, data)["records"]


def test_the_place_comes_from_the_path() -> None:
    path, data = SAMPLES["macro"]
    place = describe(f"mnt/{path}", data)["place"]
    assert place["root"] == "mnt/"
    assert (place["cluster_name"], place["tenant_id"], place["inc_set"]) == ("seekdb", 1, 1)


def test_damage_is_located() -> None:
    path, data = SAMPLES["macro"]
    bad = bytearray(data)
    bad[4096 + 60] ^= 1
    found = describe(path, bytes(bad))
    assert found["ok"] is False
    assert found["records"] == {"macro_block": 1}
    assert found["error"]["offset"] == 4096 + 48
    assert found["size"] == len(data)
    path, data = SAMPLES["archive"]
    bad = bytearray(data)
    bad[300] ^= 1
    assert describe(path, bytes(bad))["records"]["damage"] == 1
    torn = describe(path, data[:-1])
    assert torn["ok"] is True  # a torn tail is what a crash leaves, not damage
    assert torn["records"]["torn_tail"] == 1


def test_a_mount_file_of_another_round() -> None:
    path, _ = SAMPLES["mount_file"]
    assert describe(path, b"8")["ok"] is False
    assert describe(None, b"8")["ok"] is True
    assert sniff(b"12") is FileKind.MOUNT_FILE


@settings(max_examples=60)
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_mutated_files_raise_our_errors_only(name: str, data: st.DataObject) -> None:
    path, content = SAMPLES[name]
    bad = bytearray(content)
    # Most of a file is padding: aim at where something is.
    live = [i for i, byte in enumerate(content) if byte] or [0]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from(live))
        kind = data.draw(st.sampled_from(["set", "cut", "insert"]))
        at = min(at, max(0, len(bad) - 1))
        if kind == "set" and bad:
            bad[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del bad[at : at + data.draw(st.integers(1, 64))]
        else:
            bad[at:at] = data.draw(st.binary(min_size=1, max_size=32))
    for where in (path, None):
        for strict in (True, False):
            try:
                list(records(where, bytes(bad), strict=strict))
            except IntegrityError:
                pass


@settings(max_examples=60)
@given(st.sampled_from(sorted(SAMPLES)), st.binary(max_size=300))
def test_any_bytes_under_any_name_raise_our_errors_only(name: str, data: bytes) -> None:
    path, content = SAMPLES[name]
    for whole in (data, content[:48] + data, content[: len(content) // 2] + data):
        for strict in (True, False):
            try:
                list(records(path, whole, strict=strict))
            except IntegrityError:
                pass


@given(st.binary(max_size=100))
def test_payloads_behind_valid_checksums_are_hostile_too(body: bytes) -> None:
    """A hostile writer computes the checksums: what is left is the decoders' own care."""
    from mover.media.archive import ArchiveBlockMeta, build_block
    from mover.media.frames import end_mark, frame
    from mover.media.info_file import encode_info

    whole = [frame(kind, body) + end_mark() for kind in (0, 1, 2, 3, 200, 201, 202, 203)]
    whole += [encode_info(kind, body) for kind in (5, 6, 7, 8, 9, 12, 13, 14, 204)]
    whole += [
        frame(kind, body, compressor=compressor, raw_length=50) + end_mark()
        for kind in (0, 1, 3, 200)
        for compressor in (2, 8)
    ]
    whole.append(build_block(ArchiveBlockMeta(0, 0, 0, 0, 0, 0, 0, 0, 0), body, offset=0))
    whole.append(build_block(ArchiveBlockMeta(0, 0, 0, 0, 0, 0, 0, 0, 0), b"CC\x00\x01" + body, offset=0))
    for data in whole:
        for strict in (True, False):
            try:
                list(records(None, data, strict=strict))
            except IntegrityError:
                pass
