"""The container of every info file: one common header, one body, nothing behind it."""

from __future__ import annotations

from mover.errors import FormatError
from mover.kernel import ob_crc64
from mover.media.header import HEADER_SIZE, CommonHeader, Compressor, parse_header
from mover.media.serial import Buffer


def encode_info(data_type: int, body: Buffer) -> bytes:
    """A whole info file: header (no padding, no end mark) and body."""
    return CommonHeader(data_type, len(body), len(body), ob_crc64(body)).pack() + bytes(body)


def decode_info(data: Buffer, data_type: int, *, strict: bool = True) -> bytes:
    """The body of an info file. Raises FormatError when anything in the file is not accounted for."""
    header = parse_header(data, strict=strict, data_type=data_type)
    if header.compressor != Compressor.NONE or header.align_length:
        raise FormatError(
            f"bad info file: expected no compression and no padding, found compressor {header.compressor}"
            f" and {header.align_length} bytes",
            offset=0,
        )
    body = bytes(memoryview(data)[HEADER_SIZE:])
    header.check_payload(body)
    return body
