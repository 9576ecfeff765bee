"""Reads the main containers from OceanBase 3.1.0's documented format alone. Nothing of mover is imported here.

Deliberately plain: a second opinion on what the bytes mean, with its own CRC-32C table and its own cursor.
"""

from __future__ import annotations

import struct
from typing import Any

_POLY = 0x82F63B78
TABLE = []
for _n in range(256):
    _c = _n
    for _ in range(8):
        _c = (_c >> 1) ^ (_POLY if _c & 1 else 0)
    TABLE.append(_c)


def crc(data: bytes, seed: int = 0) -> int:
    """CRC-32C with start value ``seed`` and no final inversion."""
    value = seed
    for byte in data:
        value = TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value


assert crc(b"123456789") == 0x58E3FA20


class Bad(Exception):
    """Not the documented format."""


def need(condition: object, text: str) -> None:
    if not condition:
        raise Bad(text)


# --- UNIS ----------------------------------------------------------------------------------------------------------


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def bytes(self, n: int) -> bytes:
        need(self.at + n <= len(self.data), "short")
        self.at += n
        return self.data[self.at - n : self.at]

    def vint(self) -> int:
        value = shift = 0
        while True:
            byte = self.bytes(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return value

    def i64(self) -> int:
        value = self.vint()
        return value - 2**64 if value >= 2**63 else value

    def vstr(self) -> bytes:
        value = self.bytes(self.vint())
        need(self.bytes(1) == b"\0", "vstr without NUL")
        return value

    def object(self) -> Cursor:
        need(self.vint() == 1, "struct version")
        start = self.at
        length = self.vint()
        need(self.at - start == 5, "struct length of 5 bytes")
        return Cursor(self.bytes(length))

    def fixed(self) -> str:
        inner = self.object()
        value = inner.bytes(inner.vint())
        need(value.endswith(b"\0"), "char array without NUL")
        return value[:-1].decode()

    def pg(self) -> tuple[int, int, int]:
        return struct.unpack(">qii", self.bytes(16))

    def done(self) -> bool:
        return self.at == len(self.data)


# --- common header and framing ---------------------------------------------------------------------------------------


def common_header(raw: bytes) -> dict[str, int]:
    need(len(raw) == 48, "header size")
    names = ("data_type", "header_version", "data_version", "compressor", "header_length", "checksum", "pad")
    fields = dict(zip((*names, "length", "zlength", "crc", "align"), struct.unpack("<HHHHhhIqqqq", raw), strict=True))
    folded = 0
    for offset in (0, 2, 6, 8, *range(16, 48, 2)):
        folded ^= struct.unpack_from("<H", raw, offset)[0]
    need(folded == fields["checksum"] & 0xFFFF, "header checksum")
    need(fields["header_version"] == 1 and fields["header_length"] == 48, "header version or length")
    return fields


def info_body(data: bytes, data_type: int) -> Cursor:
    """The body of an info file."""
    header = common_header(data[:48])
    body = data[48:]
    need(header["data_type"] == data_type, "data type")
    need(header["length"] == header["zlength"] == len(body) and header["align"] == 0, "info length")
    need(header["crc"] == crc(body), "info crc")
    return Cursor(body)


def frames(data: bytes, data_type: int) -> list[tuple[int, bytes]]:
    """(offset of the frame, payload) of an append-only file."""
    found, at = [], 0
    while True:
        header = common_header(data[at : at + 48])
        payload = data[at + 48 : at + 48 + header["zlength"]]
        need(len(payload) == header["zlength"] and crc(payload) == header["crc"], "payload")
        end = at + 48 + header["zlength"] + header["align"]
        need(end % 4096 == 0 and not any(data[at + 48 + header["zlength"] : end]), "padding")
        if header["data_type"] == 10:
            need(end == len(data) and not payload, "end mark")
            return found
        need(header["data_type"] == data_type and header["compressor"] == 1, "type or compressor")
        found.append((at, payload))
        at = end


# --- data backup -----------------------------------------------------------------------------------------------------


def macro_file(data: bytes) -> list[dict[str, Any]]:
    out = []
    for at, payload in frames(data, 1):
        body = Cursor(payload)
        macro = body.object()
        need(body.done(), "bytes behind the macro data")
        out.append({"offset": at, "meta": macro.vstr(), "block": macro.vstr()})
        need(macro.done(), "bytes in the macro data")
    return out


def version_range(cursor: Cursor) -> tuple[int, int, int]:
    inner = cursor.object()
    return inner.i64(), inner.i64(), inner.i64()


def macro_index(data: bytes) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    left = 0
    for _, payload in frames(data, 3):
        cursor = Cursor(payload)
        while not cursor.done():
            record = cursor.object()
            if left == 0:
                key = record.object()
                group = {"table_type": key.vint(), "pg": key.pg(), "table_id": key.vint()}
                group["versions"] = version_range(key)
                group["version"] = key.object().i64()
                group["logs"] = version_range(key)
                left = group["count"] = record.i64()
                group["blocks"] = []
                groups.append(group)
            else:
                groups[-1]["blocks"].append(tuple(record.i64() for _ in range(7)))
                left -= 1
            need(record.done(), "bytes in an index record")
    need(left == 0, "short group")
    return groups


def meta_file(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(offset, length, type, body) of every record."""
    out = []
    for at, payload in frames(data, 0):
        cursor = Cursor(payload)
        while not cursor.done():
            start = cursor.at
            record = cursor.vstr()
            version, kind, checksum, reserved, length, body_crc = struct.unpack_from("<HHH6siq", record)
            folded = 0
            for offset in (0, 2, *range(12, 24, 2)):
                folded ^= struct.unpack_from("<H", record, offset)[0]
            body = record[24:]
            need(version == 1 and folded == checksum and reserved == bytes(6), "meta header")
            need(length == len(body) and crc(body) == body_crc, "meta body")
            out.append((at + 48 + start, cursor.at - start, kind, body))
    return out


def meta_index(data: bytes) -> list[tuple[int, ...]]:
    out = []
    for _, payload in frames(data, 2):
        cursor = Cursor(payload)
        while not cursor.done():
            record = cursor.object()
            out.append(tuple(record.i64() for _ in range(6)))
            need(record.done(), "bytes in a meta index record")
    return out


def _items(data: bytes, data_type: int) -> list[Cursor]:
    cursor = info_body(data, data_type)
    outer = cursor.object()
    need(cursor.done(), "bytes behind the list")
    items = [outer.object() for _ in range(outer.vint())]
    need(outer.done(), "bytes behind the last element")
    return items


def backup_infos(data: bytes) -> list[tuple[Any, ...]]:
    out = []
    for item in _items(data, 6):
        numbers = tuple(item.i64() for _ in range(12))
        kinds = tuple(item.vint() for _ in range(3))
        out.append((*numbers, *kinds, item.fixed(), item.bytes(1)[0]))
        need(item.done(), "element")
    return out


def set_infos(data: bytes) -> list[tuple[int, ...]]:
    return [tuple(item.i64() for _ in range(9)) for item in _items(data, 7)]


def pg_list(data: bytes) -> list[tuple[int, int, int]]:
    outer = info_body(data, 8).object()
    pgs = [outer.pg() for _ in range(outer.vint())]
    need(outer.done(), "bytes behind the last PG")
    return pgs


def tenant_infos(data: bytes) -> list[tuple[Any, ...]]:
    return [(item.vint(), item.i64(), item.i64(), item.vint(), item.fixed(), item.i64()) for item in _items(data, 9)]


def tenant_names(data: bytes) -> tuple[int, list[tuple[str, int, list[tuple[int, int]]]]]:
    cursor = info_body(data, 14)
    meta = cursor.object()
    schema, count = meta.i64(), meta.i64()
    names = []
    for _ in range(count):
        item = cursor.object()
        name, complete = item.vstr().decode(), item.bytes(1)[0]
        ids = []
        for _ in range(item.vint()):
            one = item.object()
            ids.append((one.vint(), one.i64()))
        names.append((name, complete, ids))
    need(cursor.done(), "bytes behind the names")
    return schema, names


def archive_rounds(data: bytes) -> list[tuple[int, ...]]:
    out = []
    for item in _items(data, 5):
        numbers = tuple(item.i64() for _ in range(6))
        out.append((*numbers, item.bytes(1)[0], item.bytes(1)[0], item.vint()))
        need(item.done(), "element")
    return out


# --- log archive -----------------------------------------------------------------------------------------------------

BLOCK_FIELDS = str.split(
    "magic version total timestamp epoch accum min_log_id min_ts max_log_id checkpoint max_submit input output crc"
)


def archive_blocks(data: bytes) -> list[dict[str, Any]]:
    out, at = [], 0
    while at < len(data):
        raw = data[at : at + 104]
        values = struct.unpack(">hhi11qq", raw)
        need(crc(struct.pack("<hhi11q", *values[:-1])) == values[-1], "block meta checksum")
        block: dict[str, Any] = dict(zip(BLOCK_FIELDS, values, strict=False))
        need(block["magic"] == 0x4142 and block["version"] == 1, "block magic")
        payload = data[at + 104 : at + block["total"]]
        need(crc(payload) == block["crc"], "block data checksum")
        end = at + block["total"]
        need(struct.unpack(">i", data[end : end + 4])[0] == at, "block tail")
        block.update(offset=at, payload=payload)
        out.append(block)
        at = end + 4
    return out


def chunk(payload: bytes) -> tuple[int, int, bytes] | None:
    """(compressor, original length, compressed bytes) of a compressed payload."""
    if payload[:2] != b"CC":
        return None
    _, version, compressor, original, compressed = struct.unpack(">hhiii", payload[:16])
    need(version == 1 and compressed == len(payload) - 16, "chunk")
    return compressor, original, payload[16:]


def murmur(data: bytes, seed: int) -> int:
    m, mask = 0xC6A4A7935BD1E995, 2**64 - 1
    h = seed ^ (len(data) * m & mask)
    for i in range(len(data) // 8):
        k = int.from_bytes(data[8 * i : 8 * i + 8], "little") * m & mask
        k ^= k >> 47
        h = (h ^ (k * m & mask)) * m & mask
    tail = data[len(data) // 8 * 8 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h ^= h >> 47
    h = h * m & mask
    return h ^ (h >> 47)


ENTRY_FIELDS = str.split(
    "magic version type table part assist log_id length gen epoch ipv server pts submit crc freeze hcrc"
)


def log_entries(payload: bytes) -> list[dict[str, Any]]:
    out, at = [], 0
    names = ENTRY_FIELDS
    while at < len(payload):
        header = dict(zip(names, struct.unpack(">hhiqiiqqqqbqqqqqq", payload[at : at + 105]), strict=True))
        need(header["magic"] == 0x4552 and header["version"] == 1, "entry magic")
        hashed = murmur(struct.pack("<q", header["table"]), 0)
        hashed = murmur(struct.pack("<i", header["part"]), hashed)
        hashed = murmur(struct.pack("<i", header["assist"]), hashed)
        submit = header["submit"] & (2**63 - 1)
        image = (
            struct.pack("<hhi", header["magic"], header["version"], header["type"])
            + struct.pack("<qiiQ", header["table"], header["part"], header["assist"], hashed)
            + struct.pack("<qqqq", header["log_id"], header["length"], header["gen"], header["epoch"])
            + struct.pack("<i", header["ipv"])
            + struct.pack("<I", header["server"] >> 32)
            + bytes(12)
            + struct.pack("<i", header["server"] & 0xFFFFFFFF)
            + struct.pack("<qqqq", header["pts"], submit, header["crc"], header["freeze"])
        )
        need(len(image) == 120 and crc(image) == header["hcrc"], "entry header checksum")
        body = payload[at + 105 : at + 105 + header["length"]]
        need(len(body) == header["length"] and crc(body) == header["crc"], "entry body")
        out.append({**header, "body": body})
        at += 105 + header["length"]
    return out


INDEX_FIELDS = str.split(
    "magic length version valid file_id input output epoch accum min_log_id min_ts max_log_id checkpoint submit"
    " round_start_ts round_start_log_id round_snapshot round_submit round_epoch round_accum"
)


def archive_index(data: bytes) -> list[dict[str, int]]:
    out = []
    for at in range(0, len(data), 144):
        values = struct.unpack(">hhhh16qq", data[at : at + 144])
        need(crc(struct.pack("<hhhh16q", *values[:-1])) == values[-1], "index checksum")
        record = dict(zip(INDEX_FIELDS, values, strict=False))
        need(record["magic"] == 0x4149 and record["length"] == 144 and record["version"] == 1, "index magic")
        out.append(record)
    return out


def archive_key(data: bytes) -> dict[str, Any]:
    need(len(data) == 168, "key size")
    magic, version, first, reserved, file_id = struct.unpack(">hhhhq", data[:16])
    need((magic, version, reserved) == (0x414B, 1, 0), "key magic")
    (index,) = archive_index(data[16:160])
    values = struct.unpack(">hhhh16qq", data[16:160])
    image = struct.pack("<hhhhq", magic, version, first, reserved, file_id) + struct.pack("<hhhh16qq", *values)
    need(crc(image) == struct.unpack(">q", data[160:])[0], "key checksum")
    return {"first": first, "file_id": file_id, "index": index}


def archive_start(data: bytes) -> tuple[int, int]:
    checksum, round_id, timestamp = struct.unpack(">qqq", data)
    need(checksum == crc(struct.pack("<qq", round_id, timestamp)), "start checksum")
    return round_id, timestamp
