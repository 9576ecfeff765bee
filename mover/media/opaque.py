"""Info files whose members are not known, read as far as they can be: header, checksum, and the shape of the structs.

Later 3.x writes ``*_backup_set_file_info`` (ObBackupSetFileInfo), whose member list is not confirmed. A reader that
guessed it would tell wrong numbers; this one says how many elements there are and shows each as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from mover.errors import FormatError
from mover.kernel import encode_vi64
from mover.media.header import HEADER_SIZE, CommonHeader, parse_header
from mover.media.info_file import decode_info, encode_info
from mover.media.serial import Buffer, Reader, unis

_SMALLEST = 6  # bytes of an empty UNIS struct


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a list, undecoded. ``offset``: of its first byte in the file."""

    offset: int
    data: bytes


def split_elements(data: Buffer, data_type: int, *, strict: bool = False) -> tuple[Element, ...]:
    """The elements of an info file that is a list (FORMAT.md section 8), as the bytes they are.

    Raises FormatError when the header, the checksum or the nesting of the structs does not hold.
    """
    body = decode_info(data, data_type, strict=strict)
    reader = Reader(body, base_offset=HEADER_SIZE, strict=strict)
    outer = reader.enter(1, "a list")
    found = []
    for _ in range(reader.count(_SMALLEST, "a list")):
        start = reader.offset
        inner = reader.enter(1, "an element")
        reader.take(reader.remaining, "an element")
        reader.leave(inner, "an element")
        found.append(Element(HEADER_SIZE + start, body[start : reader.offset]))
    reader.leave(outer, "a list")
    reader.finish("a list")
    return tuple(found)


def join_elements(elements: tuple[bytes, ...] | list[bytes], header: CommonHeader) -> bytes:
    """The whole info file of these elements, with the data version that ``header`` (of its source) has."""
    body = unis(encode_vi64(len(elements)) + b"".join(elements))
    data = encode_info(header.data_type, body)
    version = header.data_version.to_bytes(2, "little")  # the header's checksum does not cover it
    return data[:4] + version + data[6:]


def header_of(data: Buffer) -> CommonHeader:
    """The header of an info file. Raises FormatError."""
    return parse_header(data, strict=False)


def describe_opaque(data: Buffer, data_type: int) -> list[dict[str, object]]:
    """Rows for `mover inspect`: each element, or the one struct that the file is. Raises FormatError."""
    try:
        elements = split_elements(data, data_type)
    except FormatError:
        body = decode_info(data, data_type, strict=False)
        reader = Reader(body, base_offset=HEADER_SIZE, strict=False)
        outer = reader.enter(1, "a struct")
        reader.leave(outer, "a struct")
        reader.finish("a struct")
        elements = (Element(HEADER_SIZE, body),)
    return [{"offset": element.offset, "bytes": len(element.data), "data": element.data.hex()} for element in elements]
