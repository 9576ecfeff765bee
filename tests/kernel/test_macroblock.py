import struct

from hypothesis import given
from hypothesis import strategies as st
from palf_log import crc
from twins import same

from mover.kernel.macroblock import MacroHeader


def block(kind: int, payload: bytes, *, size: int = 16384, tail: bytes = b"", shared: bool = False, **wrong) -> bytes:
    """A macroblock by the format description."""
    fields = {"header_size": 24, "version": 1, "magic": 1001, "kind": kind, "payload_size": len(payload)}
    fields["checksum"] = crc(payload)
    if shared:
        fields |= {"payload_size": 0, "checksum": 0}
    head = struct.pack("<iiiiiI", *(fields | wrong).values())
    return (head + payload + tail).ljust(size, b"\0")


def sstable(rows: bytes, *, magic: int = 1007, version: int = 2, size: int = 96, compressor: int = 1) -> bytes:
    fixed = struct.pack("<IHHQqq12iq", size, version, magic, 200001, 17953, 5, *range(12), 2718458585)
    return fixed + struct.pack("<ii", compressor, 0) + rows


def test_data_block():
    payload = sstable(b"rows" * 500)
    assert same("macroblock_check", block(1, payload, tail=b"stale")) == MacroHeader(
        1, 24 + len(payload), len(payload), crc(payload), 200001, 17953, 5, 2718458585, True, "", False
    )


@given(st.sampled_from([0, 88, 91, 92, 96, 152, 2**31, 2**32 - 1]), st.integers(-2, 12), st.integers(0, 9))
def test_the_engines_compressor_is_told_where_the_header_has_it(size, compressor, rows):
    payload = sstable(b"r" * rows, size=size, compressor=compressor)
    header = same("macroblock_check", block(1, payload))
    stated = 92 <= size <= len(payload) and compressor > 0
    assert header.ok
    assert header.engine_compressed == (compressor != 1 if stated else None)
    assert same("macroblock_check", block(2, payload)).engine_compressed is None


def test_linked_block():
    assert same("macroblock_check", block(2, b"chain" * 9, tail=b"stale")).used_length == 24 + 45


@given(st.integers(0, 16360), st.sampled_from([7, 8, 3, 200]))
def test_shared_block_ends_with_its_last_byte_that_is_not_zero(length, kind):
    header = same("macroblock_check", block(kind, bytes(length) + b"\1" if length < 16360 else b"", shared=True))
    assert header.ok
    assert header.kind == kind
    # The header's own last byte that is not zero is in its type, at offset 12.
    assert header.used_length == (24 + length + 1 if length < 16360 else 13)


def test_block_of_another_type_with_a_payload_size_is_checked_and_not_trimmed():
    good = same("macroblock_check", block(4, b"abc", tail=b"more"))
    assert (good.ok, good.used_length) == (True, 24 + 7)
    assert not same("macroblock_check", block(4, b"abc", checksum=1)).ok


def test_never_used_block():
    assert same("macroblock_check", bytes(4096)) == MacroHeader(0, 0, 0, 0, 0, 0, 0, 0, True, "")


def test_what_is_no_macroblock():
    for data in (
        b"",
        b"x" * 23,
        b"x" * 24,
        block(1, sstable(b""), magic=1000),
        block(1, b"", version=2),
        block(0, b""),
    ):
        header = same("macroblock_check", data)
        assert (header.kind, header.used_length, header.ok) == (0, 0, False)
        assert header.reason


def test_bad_contents_are_named():
    payload = sstable(b"x")
    for data, word in (
        (block(1, payload, checksum=crc(payload) ^ 1), "checksum"),
        (block(1, payload, payload_size=1 << 20), "does not fit"),
        (block(1, payload, payload_size=-1), "does not fit"),
        (block(2, payload, payload_size=0), "does not fit"),
        (block(1, b"short"), "too small"),
        (block(1, sstable(b"", magic=1)), "sstable header"),
        (block(1, sstable(b"", version=3)), "sstable header"),
    ):
        header = same("macroblock_check", data)
        assert not header.ok
        assert word in header.reason


@given(st.data())
def test_a_flipped_bit_under_the_checksum_is_found(draw):
    payload = sstable(b"rows" * 50)
    data = bytearray(block(1, payload, tail=b"stale"))
    at = draw.draw(st.integers(0, 24 + len(payload) - 1).filter(lambda at: not 12 <= at < 16))  # all but the type
    data[at] ^= 1 << draw.draw(st.integers(0, 7))
    assert not same("macroblock_check", data).ok


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(-(2**31), 2**31 - 1), st.integers(-1, 9))
def test_any_bytes_give_the_same_answer(body, whole, payload_size, kind):
    same("macroblock_check", whole)
    same("macroblock_check", struct.pack("<iiiiiI", 24, 1, 1001, kind, payload_size, 0) + body)
