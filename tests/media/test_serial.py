"""UNIS: what is written is read back, only the shortest form is accepted, and lies about lengths cost nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import FormatError
from mover.kernel import decode_vi64, encode_vi64
from mover.media import serial
from mover.media.pg import PGKey

u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
names = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


@dataclass(frozen=True, slots=True)
class Inner:
    flag: bool
    pg: PGKey


@dataclass(frozen=True, slots=True)
class Outer:
    a: int
    b: int
    c: int
    name: str
    fixed: str
    raw: bytes
    inner: Inner
    many: tuple[int, ...]
    late: int = 0
    later: tuple[str, ...] = field(default=())


INNER: serial.Unis[Inner] = serial.Unis(Inner, [("flag", serial.BOOL), ("pg", serial.PG)])
OLD_MEMBERS = [
    ("a", serial.I64),
    ("b", serial.I32),
    ("c", serial.U16),
    ("name", serial.TEXT),
    ("fixed", serial.FIXED_STRING),
    ("raw", serial.BYTES),
    ("inner", INNER),
    ("many", serial.array(serial.U64)),
]
OLD: serial.Unis[Outer] = serial.Unis(Outer, OLD_MEMBERS)
NEW: serial.Unis[Outer] = serial.Unis(
    Outer, [*OLD_MEMBERS, ("late", serial.I64), ("later", serial.array(serial.CHARS))]
)
pgs = st.builds(PGKey, u64, st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
outers = st.builds(
    Outer,
    i64,
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 0xFFFF),
    names,
    names,
    st.binary(max_size=30),
    st.builds(Inner, st.booleans(), pgs),
    st.lists(u64, max_size=5).map(tuple),
    i64,
    st.lists(names, max_size=3).map(tuple),
)


@given(outers)
def test_round_trip(value: Outer) -> None:
    assert NEW.decode(NEW.encode(value)) == value


@given(outers)
def test_newer_members_are_skipped_and_missing_ones_default(value: Outer) -> None:
    old = OLD.decode(NEW.encode(value), strict=False)
    assert (old.a, old.many, old.late, old.later) == (value.a, value.many, 0, ())
    assert NEW.decode(OLD.encode(value), strict=False) == old
    with pytest.raises(FormatError):
        OLD.decode(NEW.encode(value))
    with pytest.raises(FormatError):
        NEW.decode(OLD.encode(value))


@given(u64)
def test_varints_agree_with_the_kernel(value: int) -> None:
    data = encode_vi64(value)
    assert len(data) == serial.varint_size(value)
    reader = serial.Reader(data)
    assert reader.varint() == value == decode_vi64(data, 0)[0]
    assert reader.remaining == 0


@pytest.mark.parametrize(
    ("data", "strict"),
    [
        (b"\x80\x00", True),  # zero in two bytes
        (b"\xff" * 9 + b"\x02", False),  # 65 bits
        (b"\xff" * 10 + b"\x00", False),  # 11 bytes
        (b"\x80", False),
        (b"", False),
    ],
)
def test_bad_varints(data: bytes, strict: bool) -> None:
    with pytest.raises(FormatError) as caught:
        serial.Reader(data, base_offset=100, strict=strict).varint()
    assert caught.value.where["offset"] == 100


def test_a_lenient_reader_takes_long_varints() -> None:
    assert serial.Reader(b"\x85\x80\x00", strict=False).varint() == 5


def test_padded_length_is_five_bytes() -> None:
    assert serial.padded_length(0) == b"\x80\x80\x80\x80\x00"
    assert serial.padded_length(300) == b"\xac\x82\x80\x80\x00"
    with pytest.raises(ValueError, match="does not fit"):
        serial.padded_length(1 << 35)


@pytest.mark.parametrize("claimed", [2**63, 2**35, 10_000_000])
def test_claimed_lengths_do_not_allocate(claimed: int) -> None:
    for kind in (serial.BYTES, serial.CHARS, serial.array(serial.U64), serial.array(INNER)):
        with pytest.raises(FormatError):
            kind.get(serial.Reader(encode_vi64(claimed) + bytes(8)), "x")


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_give_format_errors_only(data: bytes, strict: bool) -> None:
    try:
        value = NEW.decode(data, strict=strict)
    except FormatError:
        return
    if strict:
        assert NEW.encode(value) == data


@given(outers, st.data())
def test_mutations_are_refused_or_canonical(value: Outer, data: st.DataObject) -> None:
    encoded = bytearray(NEW.encode(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.integers(0, 255))
    try:
        decoded = NEW.decode(encoded)
    except FormatError:
        return
    assert NEW.encode(decoded) == bytes(encoded)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(serial.U16, 1 << 16), (serial.I32, 1 << 31), (serial.U64, -1), (serial.CHARS, "a\x00b"), (serial.I16, -32769)],
)
def test_values_that_do_not_fit_are_refused(kind: serial.Kind[object], value: object) -> None:
    with pytest.raises(ValueError):
        kind.put(value)
