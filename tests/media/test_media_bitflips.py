"""Every single bit of every kind of file is covered by some check."""

from __future__ import annotations

import pytest
from media_samples import samples
from sealed_samples import sealed_samples

from mover.errors import FormatError, IntegrityError
from mover.media.inspect import describe, records

SAMPLES = samples() | sealed_samples()


def damaged(path: str, data: bytes) -> bool:
    """Does strict decoding notice anything?"""
    try:
        return any(row["record"] in {"damage", "torn_tail"} for row in records(path, data, strict=True))
    except IntegrityError:
        return True


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_decodes(name: str) -> None:
    path, data = SAMPLES[name]
    assert not damaged(path, data)
    found = describe(path, data, strict=True)
    assert found["ok"]
    assert found["size"] == len(data)
    assert found["records"] or name == "sys pgs"


@pytest.mark.parametrize("name", SAMPLES)
def test_every_flipped_bit_is_noticed(name: str) -> None:
    path, data = SAMPLES[name]
    # Long runs of zero padding are checked by one comparison: three bytes of each run stand for the rest.
    positions = [
        i for i in range(len(data)) if not (16 < i < len(data) - 16 and not any(data[i - 8 : i + 9]) and i % 512)
    ]
    buffer = bytearray(data)
    unnoticed = []
    for position in positions:
        for bit in range(8):
            buffer[position] ^= 1 << bit
            if not damaged(path, bytes(buffer)):
                unnoticed.append((position, bit))
            buffer[position] ^= 1 << bit
    assert unnoticed == []


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "mount_file"])
def test_every_truncation_is_noticed(name: str) -> None:
    path, data = SAMPLES[name]
    # A cut between two records of a file that only ever grows is not damage: what names the file knows its length.
    growing = {"archive_block", "index"} if name.startswith("archive") and name != "archive key" else set()
    whole = {row["offset"] for row in records(path, data) if row["record"] in growing}
    step = max(1, len(data) // 997)
    unnoticed = [
        cut for cut in {*range(0, len(data), step), len(data) - 1} if cut not in whole and not damaged(path, data[:cut])
    ]
    assert unnoticed == []


@pytest.mark.parametrize("name", SAMPLES)
def test_bytes_behind_the_end_are_noticed(name: str) -> None:
    path, data = SAMPLES[name]
    assert damaged(path, data + b"\x00")
    assert damaged(path, data + data)


@pytest.mark.parametrize("name", SAMPLES)
def test_files_are_recognised_by_content(name: str) -> None:
    path, data = SAMPLES[name]
    by_path, by_content = describe(path, data), describe(None, data)
    assert by_content["records"] == by_path["records"]


def test_what_is_not_ours_is_refused() -> None:
    for data in (b"", b"\x7fELF" + bytes(100), b"hello"):
        with pytest.raises(FormatError):
            list(records("somewhere/else", data))
