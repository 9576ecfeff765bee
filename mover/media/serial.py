"""UNIS, the serialization OceanBase uses for everything behind a header: a writer, a reader and typed struct codecs.

Integers are low-group-first varints of the unsigned bit pattern; a struct is ``varint version | 5-byte padded varint
length | members``; ``vstr`` is ``varint length | bytes | NUL``; ``char[N]`` is ``varint strlen + 1 | bytes with NUL``.
An array is ``varint count`` and its elements. Source of the rules: OceanBase 3.1.0, described in FORMAT.md.

A strict reader accepts only the bytes the writer would make (shortest varints, 0/1 booleans, no unknown trailing
members). A lenient one also takes what OceanBase's own evolution rule allows: unknown members at the end of a struct
are skipped and missing ones keep their defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any, Generic, TypeVar

from mover.errors import FormatError
from mover.kernel import decode_vi64, encode_vi64
from mover.media.pg import PGKey

Buffer = bytes | bytearray | memoryview

_U64 = (1 << 64) - 1
_U32 = (1 << 32) - 1
LENGTH_WIDTH = 5  # bytes of the padded length in a UNIS struct
MAX_LENGTH = (1 << 35) - 1  # what fits into them
PG_SIZE = 16

T = TypeVar("T")


def padded_length(value: int) -> bytes:
    """The 5-byte varint of a struct length: every byte but the last has its continue bit, even over zeros."""
    if not 0 <= value <= MAX_LENGTH:
        raise ValueError(f"struct length {value} does not fit in {LENGTH_WIDTH} varint bytes")
    return bytes(value >> 7 * i & 0x7F | (0x80 if i < LENGTH_WIDTH - 1 else 0) for i in range(LENGTH_WIDTH))


def unis(body: Buffer, version: int = 1) -> bytes:
    """``body`` wrapped as a UNIS struct of ``version``."""
    return encode_vi64(version) + padded_length(len(body)) + bytes(body)


def unis_prefix(body_length: int, version: int = 1) -> bytes:
    """The bytes before a body of ``body_length`` bytes, for callers that place the body themselves."""
    return encode_vi64(version) + padded_length(body_length)


def vstr(data: Buffer) -> bytes:
    """``data`` as a vstr."""
    return encode_vi64(len(data)) + bytes(data) + b"\x00"


def vstr_size(length: int) -> int:
    """How many bytes the vstr of ``length`` bytes takes."""
    return varint_size(length) + length + 1


def varint_size(value: int) -> int:
    """How many bytes the shortest varint of an unsigned ``value`` takes."""
    return max(1, (value.bit_length() + 6) // 7)


class Reader:
    """A cursor over a buffer that never reads past its end and never allocates what a length only claims.

    Args:
        data: what to read; not copied.
        base_offset: offset of ``data[0]`` in its file, for error messages.
        strict: accept canonical bytes only.

    Every method raises FormatError with the file offset and what was expected there.
    """

    __slots__ = ("_view", "base_offset", "end", "offset", "strict")

    def __init__(self, data: Buffer, *, base_offset: int = 0, strict: bool = True) -> None:
        self._view = memoryview(data).cast("B") if not isinstance(data, bytes) else memoryview(data)
        self.base_offset = base_offset
        self.offset = 0
        self.end = len(self._view)
        self.strict = strict

    @property
    def remaining(self) -> int:
        return self.end - self.offset

    def fail(self, expected: str, *, at: int | None = None) -> FormatError:
        """A FormatError for the current position (or ``at``), to be raised by the caller."""
        offset = self.base_offset + (self.offset if at is None else at)
        return FormatError(f"bad bytes at offset {offset}: expected {expected}", offset=offset, expected=expected)

    def take(self, length: int, what: str) -> memoryview:
        """The next ``length`` bytes, as a view."""
        if length < 0 or length > self.remaining:
            raise self.fail(f"{what} of {length} bytes, {self.remaining} are left")
        view = self._view[self.offset : self.offset + length]
        self.offset += length
        return view

    def u8(self, what: str = "a byte") -> int:
        if self.offset >= self.end:
            raise self.fail(what)
        self.offset += 1
        return self._view[self.offset - 1]

    def boolean(self, what: str = "a boolean") -> bool:
        value = self.u8(what)
        if value > 1 and self.strict:
            raise self.fail(f"{what} of 0 or 1, found {value}", at=self.offset - 1)
        return value != 0

    def varint(self, what: str = "a varint") -> int:
        """An unsigned 64-bit value. Strict: in its shortest form."""
        start = self.offset
        position, end, view = start, self.end, self._view
        value = shift = 0
        while True:
            if position >= end:
                raise self.fail(f"{what}, truncated", at=start)
            byte = view[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise self.fail(f"{what} of at most 10 bytes", at=start)
        if value > _U64:
            raise self.fail(f"{what} below 2**64", at=start)
        if byte == 0 and position - start > 1 and self.strict:
            raise self.fail(f"{what} in its shortest form", at=start)
        self.offset = position
        return value

    def i64s(self, count: int, what: str) -> list[int]:
        """``count`` i64 values that follow each other, at the kernel's speed: indexes have millions."""
        values: list[int] = []
        for _ in range(count):
            try:
                value, position = decode_vi64(self._view, self.offset)
            except FormatError:
                position = self.end + 1  # the slow path says it in our words
            if position > self.end or (self.strict and position - self.offset != varint_size(value)):
                values.append(self.i64(what))
                continue
            self.offset = position
            values.append(value - (1 << 64) if value >> 63 else value)
        return values

    def u64(self, what: str = "a u64") -> int:
        return self.varint(what)

    def i64(self, what: str = "an i64") -> int:
        value = self.varint(what)
        return value - (1 << 64) if value >> 63 else value

    def u32(self, what: str = "a u32") -> int:
        start, value = self.offset, self.varint(what)
        if value > _U32:
            raise self.fail(f"{what} below 2**32", at=start)
        return value

    def i32(self, what: str = "an i32") -> int:
        value = self.u32(what)
        return value - (1 << 32) if value >> 31 else value

    def u16(self, what: str = "a u16") -> int:
        start, value = self.offset, self.varint(what)
        if value > 0xFFFF:
            raise self.fail(f"{what} below 2**16", at=start)
        return value

    def i16(self, what: str = "an i16") -> int:
        value = self.u16(what)
        return value - (1 << 16) if value >> 15 else value

    def vstr(self, what: str = "a string") -> memoryview:
        """The bytes of a vstr, as a view."""
        length = self.varint(f"length of {what}")
        if length >= self.remaining:
            raise self.fail(f"{what} of {length} bytes and a NUL, {self.remaining} are left")
        view = self.take(length, what)
        if self.u8("a NUL"):
            raise self.fail(f"a NUL behind {what}", at=self.offset - 1)
        return view

    def text(self, what: str = "a text") -> str:
        """A vstr of UTF-8."""
        start = self.offset
        return self._decode(self.vstr(what), what, start)

    def chars(self, what: str = "a char array") -> str:
        """A ``char[N]``: strlen + 1, bytes, NUL. Never holds a NUL inside."""
        start = self.offset
        length = self.varint(f"length of {what}")
        if length == 0:
            raise self.fail(f"{what} with its NUL", at=start)
        view = self.take(length, what)
        if view[-1] or 0 in view[:-1].tobytes():
            raise self.fail(f"{what} with one NUL, at its end", at=start)
        return self._decode(view[:-1], what, start)

    def _decode(self, view: memoryview, what: str, start: int) -> str:
        try:
            return str(view, "utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"{what} in UTF-8", at=start) from error

    def enter(self, version: int = 1, what: str = "a struct") -> int:
        """Begin a UNIS struct. Returns the outer end, to be given back to :meth:`leave`."""
        start = self.offset
        found = self.varint(f"version of {what}")
        if found != version:
            raise self.fail(f"version {version} of {what}, found {found}", at=start)
        start = self.offset
        raw = self.take(LENGTH_WIDTH, f"length of {what}")
        a, b, c, d, e = raw
        if not a & b & c & d & 0x80 or e & 0x80:
            raise self.fail(f"a {LENGTH_WIDTH}-byte length of {what}", at=start)
        length = (a & 0x7F) | (b & 0x7F) << 7 | (c & 0x7F) << 14 | (d & 0x7F) << 21 | e << 28
        if length > self.remaining:
            raise self.fail(f"{what} of {length} bytes, {self.remaining} are left", at=start)
        outer = self.end
        self.end = self.offset + length
        return outer

    def leave(self, outer: int, what: str = "a struct") -> None:
        """End a UNIS struct: strict readers accept no byte behind the last known member."""
        if self.offset != self.end and self.strict:
            raise self.fail(f"the end of {what}, {self.remaining} bytes are left")
        self.offset = self.end
        self.end = outer

    def count(self, smallest: int, what: str = "an array") -> int:
        """An array count, refused when even elements of ``smallest`` bytes would not fit in what is left."""
        start, value = self.offset, self.varint(f"count of {what}")
        if value * max(1, smallest) > self.remaining:
            raise self.fail(f"{what} of {value} elements, {self.remaining} bytes are left", at=start)
        return value

    def finish(self, what: str) -> None:
        """Nothing may be left."""
        if self.remaining:
            raise self.fail(f"the end of {what}, {self.remaining} bytes are left")


class Kind(Generic[T]):
    """How one member type is written and read: ``put(value) -> bytes`` and ``get(reader, name) -> value``."""

    __slots__ = ("get", "put", "smallest")

    def __init__(self, put: Callable[[T], bytes], get: Callable[[Reader, str], T], smallest: int = 1) -> None:
        self.put = put
        self.get = get
        self.smallest = smallest  # bytes of the shortest encoding, bounds hostile array counts


def _ranged(bits: int, signed: bool) -> Callable[[int], bytes]:
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
    mask = (1 << bits) - 1

    def put(value: int) -> bytes:
        if not low <= value < high:
            raise ValueError(f"{value} does not fit in {'i' if signed else 'u'}{bits}")
        return encode_vi64(value & mask)

    return put


def _put_chars(value: str) -> bytes:
    data = value.encode()
    if b"\x00" in data:
        raise ValueError("a char array cannot hold a NUL")
    return encode_vi64(len(data) + 1) + data + b"\x00"


def _put_fixed_string(value: str) -> bytes:
    return unis(_put_chars(value))


def _get_fixed_string(reader: Reader, what: str) -> str:
    outer = reader.enter(1, what)
    value = reader.chars(what)
    reader.leave(outer, what)
    return value


def _get_pg(reader: Reader, what: str) -> PGKey:
    return PGKey.unpack(reader.take(PG_SIZE, what))


U64: Kind[int] = Kind(_ranged(64, False), Reader.u64)
I64: Kind[int] = Kind(_ranged(64, True), Reader.i64)
U32: Kind[int] = Kind(_ranged(32, False), Reader.u32)
I32: Kind[int] = Kind(_ranged(32, True), Reader.i32)
U16: Kind[int] = Kind(_ranged(16, False), Reader.u16)
I16: Kind[int] = Kind(_ranged(16, True), Reader.i16)
BOOL: Kind[bool] = Kind(lambda value: b"\x01" if value else b"\x00", Reader.boolean)
BYTES: Kind[bytes] = Kind(vstr, lambda reader, what: reader.vstr(what).tobytes(), 2)
TEXT: Kind[str] = Kind(lambda value: vstr(value.encode()), Reader.text, 2)
CHARS: Kind[str] = Kind(_put_chars, Reader.chars, 2)
# ObFixedLengthString<N>: a UNIS struct around char[N].
FIXED_STRING: Kind[str] = Kind(_put_fixed_string, _get_fixed_string, 8)
# ObPartitionKey: 16 bytes big-endian, no wrapper.
PG: Kind[PGKey] = Kind(PGKey.pack, _get_pg, PG_SIZE)


def array(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """An array of ``kind``: count and elements, no wrapper."""

    def put(values: Sequence[T]) -> bytes:
        return encode_vi64(len(values)) + b"".join(map(kind.put, values))

    def get(reader: Reader, what: str) -> tuple[T, ...]:
        return tuple(kind.get(reader, what) for _ in range(reader.count(kind.smallest, what)))

    return Kind(put, get)


class Unis(Kind[T]):
    """A UNIS struct as a dataclass: members are written in the order of ``members``.

    Args:
        cls: the dataclass; its fields are the members, by name. Fields not in ``members`` need defaults.
        members: (field name, kind) in wire order.
        version: the UNIS version, must match exactly when read.
    """

    __slots__ = ("cls", "members", "version")

    def __init__(self, cls: type[T], members: Sequence[tuple[str, Kind[Any]]], version: int = 1) -> None:
        super().__init__(self.encode, self._get, 1 + LENGTH_WIDTH)
        self.cls = cls
        self.members = tuple(members)
        self.version = version

    def encode(self, value: T) -> bytes:
        """The bytes of ``value``. Raises ValueError when a member does not fit its type."""
        return unis(b"".join([kind.put(getattr(value, name)) for name, kind in self.members]), self.version)

    def _get(self, reader: Reader, what: str) -> T:
        outer = reader.enter(self.version, what)
        values: dict[str, Any] = {}
        for name, kind in self.members:
            if reader.remaining == 0 and not reader.strict and name in self._defaults():
                break  # an older writer: it and the members behind it keep their defaults
            values[name] = kind.get(reader, f"{what}.{name}")
        reader.leave(outer, what)
        try:
            return self.cls(**values)
        except ValueError as error:
            raise reader.fail(f"{what}: {error}") from error

    def _defaults(self) -> set[str]:
        known = fields(self.cls)  # type: ignore[arg-type]
        return {f.name for f in known if f.default is not MISSING or f.default_factory is not MISSING}

    def decode(self, data: Buffer, *, base_offset: int = 0, strict: bool = True) -> T:
        """The one struct that fills ``data``. Raises FormatError."""
        reader = Reader(data, base_offset=base_offset, strict=strict)
        value = self._get(reader, self.cls.__name__)
        reader.finish(self.cls.__name__)
        return value
