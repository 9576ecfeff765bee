"""Forms that the files of a tree are made of: common header, frames, strings, arrays (data-backup notes 2.1 to 2.4)."""

from __future__ import annotations

import struct

from mover.store.sim.packing import crc, fold, unis, up, vint

META, MACRO_DATA, META_INDEX, MACRO_INDEX, _, ROUNDS, BACKUPS, SET_INFO, PG_LIST, TENANTS, END = range(11)
LOCALITY, DIAGNOSE, NAMES, PIECES, SINGLE_PIECE = 12, 13, 14, 15, 16


def vstr(data: bytes) -> bytes:
    return vint(len(data)) + data + b"\0"


def fixed(text: str) -> bytes:
    """A fixed-length string: an object with one zero-terminated member."""
    return unis(vint(len(text) + 1) + text.encode() + b"\0")


def array(items: list[bytes]) -> bytes:
    return vint(len(items)) + b"".join(items)


def common_header(data_type: int, payload: bytes, *, align: int = 0, data_version: int = 1) -> bytes:
    """48 bytes; the data version is not in the header's checksum."""
    sums = struct.pack("<qqqq", len(payload), len(payload), crc(payload), align)
    folded = fold(struct.pack("<HHHh", 1, 1, data_type, 48) + sums)
    return struct.pack("<HHHHhh4x", data_type, 1, data_version, 1, 48, folded) + sums


def frame(data_type: int, payload: bytes) -> bytes:
    """Header, payload, zeros up to 4096."""
    align = up(48 + len(payload)) - 48 - len(payload)
    return common_header(data_type, payload, align=align) + payload + bytes(align)


def framed_file(data_type: int, payloads: list[bytes]) -> bytes:
    """Frames and the end mark."""
    return b"".join([*(frame(data_type, payload) for payload in payloads), frame(END, b"")])


def info_file(data_type: int, body: bytes, *, data_version: int = 0) -> bytes:
    return common_header(data_type, body, data_version=data_version) + body
