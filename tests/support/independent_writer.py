"""Writes a small OceanBase 3.1.0 backup tree from the documented format alone. Nothing of mover is imported here."""

from __future__ import annotations

import struct

from independent_reader import crc, murmur

CLUSTER = "ob1/1/incarnation_1"
TENANT = 1001
TABLE = TENANT << 40 | 50_001
PG = (TABLE, 0, 4)
US = 1_640_000_000_000_000


def vint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def obj(*members: bytes) -> bytes:
    body = b"".join(members)
    length = bytes((len(body) >> 7 * i) & 127 | (128 if i < 4 else 0) for i in range(5))
    return b"\x01" + length + body


def vstr(data: bytes) -> bytes:
    return vint(len(data)) + data + b"\0"


def fixed(text: str) -> bytes:
    return obj(vint(len(text) + 1) + text.encode() + b"\0")


def array(items: list[bytes]) -> bytes:
    return vint(len(items)) + b"".join(items)


def pg_bytes() -> bytes:
    return struct.pack(">qii", *PG)


def header(data_type: int, payload: bytes, align: int = 0, data_version: int = 1) -> bytes:
    raw = bytearray(
        struct.pack(
            "<HHHHhhIqqqq", data_type, 1, data_version, 1, 48, 0, 0, len(payload), len(payload), crc(payload), align
        )
    )
    folded = 0
    for at in (0, 2, 6, 8, *range(16, 48, 2)):
        folded ^= struct.unpack_from("<H", raw, at)[0]
    struct.pack_into("<H", raw, 10, folded)
    return bytes(raw)


def frames(data_type: int, *payloads: bytes) -> bytes:
    out = b""
    for kind, payload in [*((data_type, p) for p in payloads), (10, b"")]:
        align = -(48 + len(payload)) % 4096
        out += header(kind, payload, align) + payload + bytes(align)
    return out


def info(data_type: int, body: bytes, data_version: int = 0) -> bytes:
    return header(data_type, body, 0, data_version) + body


# --- data backup ---------------------------------------------------------------------------------------------------

META_V2 = struct.pack("<iih", 300, 2, 1) + bytes(290)
BLOCKS = [bytes([i]) * (5000 + i) for i in (1, 2)]


def macro_file() -> bytes:
    return frames(1, *(obj(vstr(META_V2), vstr(block)) for block in BLOCKS))


def macro_index(set_id: int = 2) -> bytes:
    key = obj(
        vint(1), pg_bytes(), vint(TABLE), obj(vint(0), vint(0), vint(US)), obj(vint(5)), obj(vint(0), vint(0), vint(-1))
    )
    entries = [obj(*map(vint, (i, 5, 70 + i, set_id, 0, 8192 * i, 8192))) for i in range(2)]
    # The group begins in one frame and ends in the next.
    return frames(3, obj(key, vint(2)) + entries[0], entries[1])


def meta_files() -> tuple[bytes, bytes]:
    body = b"partition group meta"
    raw = bytearray(struct.pack("<HHh6xiq", 1, 4, 0, len(body), crc(body)))
    folded = 0
    for at in (0, 2, *range(12, 24, 2)):
        folded ^= struct.unpack_from("<H", raw, at)[0]
    struct.pack_into("<H", raw, 4, folded)
    record = vstr(bytes(raw) + body)
    index = obj(vint(4), vint(TABLE), vint(0), vint(48), vint(len(record)), vint(3))
    return frames(0, record), frames(2, index)


def backup_info(number: int, status: int, *, date: int | None = None) -> bytes:
    numbers = (number, number, 5, US, 9, US - 1, 8, 0, 0, 0, 2, 0x3_0001_0000)
    late = [] if date is None else [vint(date)]
    return obj(*map(vint, numbers), vint(1), vint(status), vint(0), fixed(""), b"\0", *late)


def backup_infos(*, later: bool = False) -> bytes:
    date = 20211225 if later else None
    return info(6, obj(array([backup_info(1, 2, date=date), backup_info(2, 0, date=date)])))


def archive_rounds(*, later: bool = False) -> bytes:
    pieces = [vint(3), vint(1)] if later else []
    items = [
        obj(*map(vint, (TENANT, US, US + n, 1, n, 1 if n == 1 else 3)), b"\0", b"\1", vint(2), *pieces) for n in (1, 2)
    ]
    return info(5, obj(array(items)), 1)


# --- log archive ---------------------------------------------------------------------------------------------------


def entry(kind: int, log_id: int, body: bytes, *, batch: bool = False) -> bytes:
    hashed = murmur(struct.pack("<q", PG[0]), 0)
    hashed = murmur(struct.pack("<i", PG[1]), hashed)
    hashed = murmur(struct.pack("<i", PG[2]), hashed)
    server = (0x0A000001, 2882)
    image = struct.pack("<hhiqiiQ", 0x4552, 1, kind, *PG, hashed)
    image += struct.pack("<qqqq", log_id, len(body), US, 7)
    image += struct.pack("<iI12xiq", 4, server[0], server[1], US - 9)
    image += struct.pack("<qqq", US + log_id, crc(body), 1)
    assert len(image) == 120
    submit = US + log_id | (1 << 63 if batch else 0)
    disk = struct.pack(">hhiqii", 0x4552, 1, kind, *PG)
    disk += struct.pack(">qqqqb", log_id, len(body), US, 7, 4)
    disk += struct.pack(">qqQqqq", server[0] << 32 | server[1], US - 9, submit, crc(body), 1, crc(image))
    assert len(disk) == 105
    return disk + body


def block(payload: bytes, at: int, low: int, high: int, accum: int, raw_length: int) -> bytes:
    fields = (0x4142, 1, 104 + len(payload), US, 7, accum, low, US, high, US, US + high, raw_length, 0, crc(payload))
    return struct.pack(">hhi11qq", *fields, crc(struct.pack("<hhi11q", *fields))) + payload + struct.pack(">i", at)


def archive_data() -> bytes:
    kickoff = entry(302, 20, obj(vint(1), vint(US), vint(US), vint(US)))
    data = block(kickoff, 0, 19, 19, 0xABCD, len(kickoff))
    bodies = {20: b"first log", 21: b"second log", 22: b""}
    accum = 0xABCD
    payload = b""
    for log_id, body in bodies.items():
        payload += entry(201, log_id, body, batch=log_id == 21)
        accum = crc(struct.pack("<q", crc(body)), accum)
    return data + block(payload, len(data), 20, 22, accum, 0)


def archive_index() -> bytes:
    out = b""
    accum = 0xABCD
    for body in (b"first log", b"second log", b""):
        accum = crc(struct.pack("<q", crc(body)), accum)
    for file_id in (1, 2):
        fields = (0x4149, 144, 1, 1, file_id, 0, 0, 7, accum, 20, US, 22, US, US + 22, US, 20, US, US, 7, 0xABCD)
        out += struct.pack(">hhhh16qq", *fields, crc(struct.pack("<hhhh16q", *fields)))
    return out


def tree(*, later: bool = False) -> dict[str, bytes]:
    """path -> content."""
    meta, meta_index = meta_files()
    names = obj(vint(9), vint(1)) + obj(vstr(b"app"), b"\1", array([obj(vint(TENANT), vint(US))]))
    start = struct.pack("<qq", 2, US)
    base = f"{CLUSTER}/{TENANT}"
    major = f"{base}/data/backup_set_2/data/{TABLE}/0/major_data"
    backup = f"{base}/data/backup_set_2/backup_2"
    clog = f"{base}/clog/2"
    return {
        f"{major}/macro_block_2.0": macro_file(),
        f"{major}/macro_block_index_2": macro_index(),
        f"{backup}/meta_file_3": meta,
        f"{backup}/meta_index_file_3": meta_index,
        f"{backup}/normal_pg_list": info(8, obj(array([pg_bytes()]))),
        f"{backup}/sys_pg_list": info(8, obj(array([]))),
        f"{backup}/tenant_locality_info": info(
            12, obj(vint(TENANT), vint(2), vint(US), vint(0), fixed("app"), fixed("FULL{1}@z1"), fixed("z1"))
        ),
        f"{backup}/tenant_diagnose_info": info(13, b"\ntenant_id:1001\nbackup info\n"),
        f"{base}/data/backup_set_2/backup_set_info": info(
            7, obj(array([obj(*map(vint, (2, US, 2, 1, 2, 4 << 20, 16384, 0x3_0001_0000, 1)))]))
        ),
        f"{base}/data/tenant_data_backup_info": backup_infos(later=later),
        f"{CLUSTER}/tenant_info": info(
            9, obj(array([obj(vint(TENANT), vint(0), vint(0), vint(0), fixed("app"), vint(US))]))
        ),
        f"{CLUSTER}/tenant_name_info": info(14, names, 1),
        f"{base}/clog/tenant_clog_backup_info": archive_rounds(later=later),
        f"{clog}/data/{TABLE}/0/1": archive_data(),
        f"{clog}/index/{TABLE}/0/1": archive_index(),
        f"{clog}/archive_key/{TABLE}_0": b"",
        f"{CLUSTER}/1/clog/2/mount_file": b"2",
        f"{CLUSTER}/clog_info/1_10.0.0.1_2882": struct.pack(">qqq", crc(start), 2, US),
    }
