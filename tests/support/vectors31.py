"""Every structure of OceanBase 2.2.6x and 3.1 with field values and bytes, packed by hand from the notes.

Each is a table of (field, width, value) laid out one after the other; nothing of mover is used, not even its checksums.
``python tests/support/vectors31.py`` writes ``tests/data/oceanbase31/*.json``: ``{"source": section of the notes,
"structs": {name: {"about": ..., "vectors": [{"fields": {...}, "hex": ...}, ...]}}}``. ``unconfirmed`` names what the
notes do not settle.
"""

from __future__ import annotations

import json
from pathlib import Path

DATA = Path(__file__).parents[1] / "data" / "oceanbase31"
US = 1_650_000_000_000_000
M64 = (1 << 64) - 1

# --- primitives ----------------------------------------------------------------------------------------------------


def crc(data, seed=0):
    """CRC-32C bit by bit: reflected 0x82F63B78, no inversions."""
    for byte in data:
        seed ^= byte
        for _ in range(8):
            seed = seed >> 1 ^ (0x82F63B78 if seed & 1 else 0)
    return seed


def murmur(data, seed):
    m = 0xC6A4A7935BD1E995
    h = seed ^ len(data) * m & M64
    while len(data) >= 8:
        k = int.from_bytes(data[:8], "little") * m & M64
        k = (k ^ k >> 47) * m & M64
        h = (h ^ k) * m & M64
        data = data[8:]
    if data:
        h = (h ^ int.from_bytes(data, "little")) * m & M64
    h = (h ^ h >> 47) * m & M64
    return h ^ h >> 47


def number(value, width, order):
    return (value & (1 << 8 * width) - 1).to_bytes(width, order)


def laid_out(fields, order):
    """Fields as (name, width, value); a value of bytes is taken as it is."""
    out = b""
    for _, width, value in fields:
        out += value.ljust(width, b"\0") if isinstance(value, bytes) else number(value, width, order)
        assert len(out) >= width
    return out


def big(fields):
    return laid_out(fields, "big")


def little(fields):
    return laid_out(fields, "little")


def vi(value):
    value &= M64
    out = []
    while True:
        out.append(value & 127 | (128 if value > 127 else 0))
        value >>= 7
        if not value:
            return bytes(out)


def unis(*members, version=1):
    body = b"".join(members)
    size = len(body)
    return vi(version) + bytes([size >> 7 * i & 127 | 128 for i in range(4)]) + bytes([size >> 28]) + body


def vstr(data):
    return vi(len(data)) + data + b"\0"


def fixed(text):
    return unis(vi(len(text) + 1) + text.encode() + b"\0")


def words(data):
    folded = 0
    for at in range(0, len(data), 2):
        folded ^= data[at] | data[at + 1] << 8
    return folded


def shown(fields):
    return {name: value.hex() if isinstance(value, bytes) else value for name, _, value in fields if name}


def vector(fields, data):
    return {"fields": fields if isinstance(fields, dict) else shown(fields), "hex": data.hex()}


def summed(fields, name, covered=None):
    """Big-endian on disk, behind it the checksum over the same fields as little-endian memory."""
    total = crc(little(fields if covered is None else covered))
    return vector([*fields, (name, 8, total)], big([*fields, (name, 8, total)]))


# --- log archive ---------------------------------------------------------------------------------------------------

KEYS = [
    (1001 << 40 | 50_001, 3, 8),
    (1001 << 40 | 1 << 39 | 1001, 0, 0),
    (1001 << 40 | 50_002, 1 << 28 | 5, 1 << 28 | 7),
]


def key_hash(key):
    value = murmur(number(key[0], 8, "little"), 0)
    value = murmur(number(key[1], 4, "little"), value)
    return murmur(number(key[2], 4, "little"), value)


def block_meta(**new):
    values = {
        "magic": (2, 0x4142),
        "version": (2, 1),
        "total_len": (4, 104 + 5000),
        "timestamp": (8, US + 7),
        "clog_epoch_id": (8, US - 1000),
        "accum_checksum": (8, 0xDEADBEEF),
        "min_log_id_in_file": (8, 41),
        "min_log_ts_in_file": (8, US + 1),
        "max_log_id": (8, 57),
        "max_checkpoint_ts": (8, US + 5),
        "max_log_submit_ts": (8, US + 6),
        "input_bytes": (8, 9000),
        "output_bytes": (8, 0),
        "data_checksum": (8, 0x01020304),
    }
    fields = [(name, width, new.get(name, value)) for name, (width, value) in values.items()]
    return summed(fields, "meta_checksum")


def index_fields(**new):
    values = {"magic": 0x4149, "record_len": 144, "version": 1, "is_valid": 1}
    fields = [(name, 2, new.get(name, value)) for name, value in values.items()]
    names = "data_file_id input_bytes output_bytes clog_epoch_id accum_checksum min_log_id min_log_ts max_log_id"
    names += " max_checkpoint_ts max_log_submit_ts round_start_ts round_start_log_id round_snapshot_version"
    names = (names + " round_log_submit_ts round_clog_epoch_id round_accum_checksum").split()
    return fields + [(name, 8, new.get(name, at * 1000 + 7)) for at, name in enumerate(names)]


def archive_key(**new):
    record = index_fields(data_file_id=0)
    total = crc(little(record))
    inner = [*record, ("checksum", 8, total)]
    head = [
        ("magic", 2, 0x414B),
        ("version", 2, 1),
        ("is_first_piece", 2, new.get("is_first_piece", 0)),
        ("reserved", 2, 0),
        ("max_index_file_id", 8, new.get("max_index_file_id", 3)),
    ]
    outer = crc(little(head) + little(inner))
    data = big(head) + big(inner) + number(outer, 8, "big")
    return vector(shown(head) | {"index_info": shown(inner), "checksum": outer}, data)


def entry_header(key, log_type, log_id, body, *, batch=False, proposal=(0x0A000001, 2882, US - 50)):
    first = [("magic", 2, 0x4552), ("version", 2, 1), ("log_type", 4, log_type)]
    first += [("table_id", 8, key[0]), ("part_id", 4, key[1]), ("assist_id", 4, key[2])]
    middle = [
        ("log_id", 8, log_id),
        ("data_len", 8, len(body)),
        ("generation_timestamp", 8, US + 2),
        ("epoch_id", 8, US - 60),
    ]
    submit = US + 3
    last = [("submit_timestamp", 8, submit), ("data_checksum", 8, crc(body)), ("freeze_version", 8, 1 << 32)]
    memory = little(first) + number(key_hash(key), 8, "little") + little(middle)
    memory += number(4, 4, "little") + number(proposal[0], 4, "little") + bytes(12)
    memory += number(proposal[1], 4, "little") + number(proposal[2], 8, "little") + little(last)
    assert len(memory) == 120
    total = crc(memory)
    server = [("ip_version", 1, 4), ("server", 8, proposal[0] << 32 | proposal[1]), ("proposal_ts", 8, proposal[2])]
    disk = [*first, *middle, *server, *last, ("header_checksum", 8, total)]
    data = big(disk)
    assert len(data) == 105
    if batch:
        data = data[:73] + bytes([data[73] | 0x80]) + data[74:]
    extra = {"partition_key_hash": key_hash(key), "batch_committed": batch, "memory": memory.hex(), "body": body.hex()}
    return vector(shown(disk) | extra, data + body)


def clog_block(kind, total, padding, data_checksum, body=b""):
    fields = [("magic", 2, 0x4C42), ("version", 2, 1), ("type", 4, kind), ("total_len", 8, total)]
    fields += [("padding_len", 8, padding), ("timestamp", 8, US + 9), ("data_checksum", 8, data_checksum)]
    found = summed(fields, "meta_checksum")
    return {"fields": found["fields"] | ({"body": body.hex()} if body else {}), "hex": found["hex"] + body.hex()}


def clog_info():
    body = big([("version", 2, 1), ("freeze_version", 8, 1 << 32), ("magic", 8, 0x13BD710F4B907562), ("count", 8, 2)])
    for at, key in enumerate(KEYS[:2]):
        body += big([("", 8, key[0]), ("", 4, key[1]), ("", 4, key[2]), ("", 8, 100 + at)])
    body += big([("", 8, 0xFA06D5F2B8A1CCE1), ("", 8, US + 99)])
    fields = {
        "version": 1,
        "freeze_version": 1 << 32,
        "last": [[list(key), 100 + at] for at, key in enumerate(KEYS[:2])],
        "max_submit_ts": US + 99,
    }
    return vector(fields, body)


def clog_trailer():
    total = crc(number(123 * 4096, 4, "little") + number(8, 4, "little"))
    body = big([("version", 2, 1), ("start_pos", 4, 123 * 4096), ("file_id", 4, 8)])
    found = clog_block(3, 512, 512 - 58, total, body)
    found["fields"] |= {"start_pos": 123 * 4096, "file_id": 8}
    return found


def status(*, later):
    fields = {"tenant_id": 1001, "start_ts": US, "checkpoint_ts": US + 500, "incarnation": 1, "round": 2, "status": 3}
    members = [vi(value) for value in fields.values()] + [b"\0", b"\1", vi(2)]
    fields |= {"is_mark_deleted": False, "is_mount_file_created": True, "compatible": 2}
    if later:
        members += [vi(4), vi(3)]
        fields |= {"backup_piece_id": 4, "start_piece_id": 3}
    return vector(fields, unis(*members))


def piece():
    names = "incarnation tenant_id round_id backup_piece_id copy_id create_date start_ts checkpoint_ts max_ts"
    names += " status file_status"
    values = [1, 1001, 2, 4, 0, 20220415, US, US + 500, US + 600, 2, 0]
    fields = dict(zip(names.split(), values, strict=True))
    data = unis(*map(vi, values), fixed("file:///backup"), vi(2), vi(3))
    return vector(fields | {"backup_dest": "file:///backup", "compatible": 2, "start_piece_id": 3}, data)


def ilog_trailer():
    fields = [
        ("magic", 2, 0x4C43),
        ("pad16", 2, 0),
        ("pad32", 4, 0),
        ("info_start", 4, 8192),
        ("info_size", 4, 8 + 4 * 72),
    ]
    fields += [("memberlist_start", 4, 8192 + 296), ("memberlist_size", 4, 72), ("file_content_checksum", 8, 0xCAFE)]
    return summed(fields, "trailer_checksum")


def ilog_item():
    key = KEYS[0]
    fields = [("is_valid", 1, 1), ("", 7, 0), ("table_id", 8, key[0]), ("part_id", 4, key[1]), ("assist_id", 4, key[2])]
    fields += [("hash", 8, key_hash(key)), ("min_log_id", 8, 11), ("max_log_id", 8, 19), ("min_log_ts", 8, US)]
    fields += [("max_log_ts", 8, US + 8), ("start_offset", 4, 320), ("", 4, 0)]
    return vector(fields, little(fields))


def cursor(*, batch):
    submit = US + 3 - (1 << 63 if batch else 0)
    fields = [("file_id", 4, 3), ("offset", 4, 4144), ("size", 4, 300), ("padding", 4, 0)]
    fields += [("accum_checksum", 8, 0xDEADBEEF), ("submit_timestamp", 8, submit)]
    return vector(fields, big(fields))


def log_archive():
    chunk = [
        ("magic", 2, 0x4343),
        ("version", 2, 1),
        ("compressor_type", 4, 8),
        ("orig_len", 4, 900),
        ("compressed_len", 4, 300),
    ]
    padding = [("magic", 2, 0x5044), ("version", 2, 1), ("entry_size", 8, 700)]
    packed = [("magic", 2, 0x4302), ("orig_len", 4, 900), ("compressed_len", 4, 300)]
    start = [("round", 8, 2), ("timestamp", 8, US)]
    start_sum = crc(little(start))
    kickoff = unis(vi(1), vi(US), vi(US - 1), vi(US - 2))
    chain = [
        crc(number(one, 8, "little"), before) for before, one in ((0, 5), (crc(number(5, 8, "little")), 0xFFFFFFFF))
    ]
    entries = [
        entry_header(KEYS[0], 201 | 1 << 31, 77, b"body of a transaction log"),
        entry_header(KEYS[1], 201, 78, b"committed in a batch", batch=True),
        entry_header(KEYS[2], 103, 1, b""),
    ]
    return {
        "ObArchiveBlockMeta": ("2.1", "104 bytes", [block_meta(), block_meta(max_log_id=40, total_len=104)]),
        "ObArchiveCompressedChunkHeader": (
            "2.2",
            "16 bytes before the compressed entries",
            [vector(chunk, big(chunk))],
        ),
        "ObLogArchiveInnerLog": (
            "2.3",
            "body of a KICKOFF",
            [
                vector(
                    {"version": 1, "checkpoint_ts": US, "round_start_ts": US - 1, "round_snapshot_version": US - 2},
                    kickoff,
                )
            ],
        ),
        "ObArchiveIndexFileInfo": (
            "2.4",
            "144 bytes",
            [summed(index_fields(), "checksum"), summed(index_fields(is_valid=0), "checksum")],
        ),
        "ObArchiveKeyContent": (
            "2.5",
            "168 bytes, generation B",
            [archive_key(), archive_key(is_first_piece=1, max_index_file_id=0)],
        ),
        "ObArchiveStartTimestamp": (
            "2.6",
            "24 bytes; the checksum comes first",
            [vector([("checksum", 8, start_sum), *start], big([("checksum", 8, start_sum), *start]))],
        ),
        "ObTenantLogArchiveStatus": (
            "2.7",
            "the second as later versions write it",
            [status(later=False), status(later=True)],
        ),
        "ObBackupPieceInfo": ("2.7", "generation B", [piece()]),
        "ObLogBlockMetaV2": (
            "3.2",
            "48 bytes; DATA and INFO",
            [clog_block(1, 8192, 8192 - 5000, 0), clog_block(2, 4096, 3950, 77)],
        ),
        "ObPaddingEntry": ("3.3", "12 bytes", [vector(padding, big(padding))]),
        "ObCompressedLogEntryHeader": ("3.3", "10 bytes", [vector(packed, big(packed))]),
        "ObLogEntryHeader": ("3.4", "105 bytes and the body; ``memory`` is what the checksum covers", entries),
        "ObLogInfoBlock": (
            "3.5",
            "body of the INFO block; version and width of freeze_version are unconfirmed",
            [clog_info()],
        ),
        "ObLogFileTrailer": ("3.5", "58 bytes; total_len and padding_len are unconfirmed", [clog_trailer()]),
        "accum_checksum": (
            "3.7",
            "running checksum of logs with these data checksums",
            [vector({"data_checksums": [5, 0xFFFFFFFF], "accum_checksums": chain}, number(chain[1], 8, "big"))],
        ),
        "partition_key_hash": (
            "3.4",
            "hash of a PG key in memory",
            [
                vector({"table_id": key[0], "part_id": key[1], "assist_id": key[2]}, number(key_hash(key), 8, "little"))
                for key in KEYS
            ],
        ),
    }


# --- observer store ------------------------------------------------------------------------------------------------


def record_header(magic, data_len, stored_len, checksum):
    # Length and version count as a word each.
    lengths = number(data_len, 8, "little") + number(stored_len, 8, "little") + number(checksum, 8, "little")
    folded = magic ^ 32 ^ 2 ^ 0 ^ words(lengths)
    fields = [
        ("magic", 2, magic),
        ("header_length", 1, 32),
        ("version", 1, 2),
        ("header_checksum", 2, folded),
        ("reserved", 2, 0),
    ]
    fields += [("data_length", 8, data_len), ("data_zlength", 8, stored_len), ("data_checksum", 8, checksum)]
    return vector(fields, little(fields))


def sstable_header(*, lob):
    n = 3
    size = (248 if lob else 240) + 18 * n
    fields = [
        ("header_size", 4, size),
        ("version", 4, 1 if lob else 3),
        ("magic", 4, 1009 if lob else 1007),
        ("attr", 4, 0),
    ]
    fields += [("table_id", 8, 1001 << 40 | 50_001), ("data_version", 8, 5), ("column_count", 4, n)]
    fields += [
        ("rowkey_column_count", 4, 1),
        ("column_index_scale", 4, 1),
        ("row_store_type", 4, 0),
        ("row_count", 4, 1234),
    ]
    fields += [("occupy_size", 4, 100_000), ("micro_block_count", 4, 7), ("micro_block_size", 4, 16384)]
    fields += [("micro_block_data_offset", 4, 32 + size), ("micro_block_data_size", 4, 90_000)]
    fields += [("micro_block_index_offset", 4, 32 + size + 90_000), ("micro_block_index_size", 4, 64)]
    fields += [("micro_block_endkey_offset", 4, 32 + size + 90_064), ("micro_block_endkey_size", 4, 112)]
    fields += [("data_checksum", 8, 0xABCDEF), ("compressor_name", 96, b"lz4_1.0"), ("encrypt_id", 8, 0)]
    fields += [
        ("master_key_id", 8, 0),
        ("encrypt_key", 16, b""),
        ("data_seq", 8, 9 | lob << 44 | 1 << 46),
        ("partition_id", 8, 3),
    ]
    if lob:
        fields += [("micro_block_size_array_offset", 4, 95_000), ("micro_block_size_array_size", 4, 28)]
    for at in range(n):
        fields.append((f"column_id_{at}", 2, 16 + at))
    for at in range(n):
        fields.append((f"column_type_{at}", 4, bytes((22, 2, 45, 0)) if at else bytes((5, 5, 63, 0))))
    for at in range(n):
        fields.append((f"column_order_{at}", 4, -at % 2 * -1))
    for at in range(n):
        fields.append((f"column_checksum_{at}", 8, 1000 + at))
    data = little(fields)
    assert len(data) == size
    found = vector(fields, data)
    found["fields"]["compressor_name"] = "lz4_1.0"
    return found


def super_block():
    values = {
        "create_timestamp": US,
        "modify_timestamp": US + 1,
        "macro_block_size": 2 << 20,
        "total_macro_block_count": 1000,
    }
    values["total_file_size"] = 1000 * (2 << 20)
    nowhere = vi(1 << 60) + vi(-1) + vi(0) + vi(0)
    content = unis(*map(vi, values.values()), unis(vi(1), vi(0), vi(0)), unis(nowhere), unis(nowhere))
    data = number(3, 4, "little") + number(1018, 4, "little") + content
    values |= {
        "version": 3,
        "magic": 1018,
        "replay_start_point": [1, 0, 0],
        "super_block_meta": -1,
        "tenant_config_meta": -1,
    }
    return vector(values, data)


def slog(command, body, sequence):
    total = crc(number(sequence, 8, "little") + number(command, 4, "little") + body) if body else 0
    size = 12 + len(body)
    lengths = number(size, 4, "little") * 2 + number(total, 8, "little")
    folded = 0xAAAA ^ 0xFFFF ^ 32 ^ 1 ^ (US & 0xFFFF) ^ words(lengths)
    fields = [("magic", 2, 0xAAAA), ("header_length", 2, 32), ("version", 2, 1), ("header_checksum", 2, folded)]
    fields += [("timestamp", 8, US), ("data_length", 4, size), ("data_zlength", 4, size), ("data_checksum", 8, total)]
    fields += [("seq", 8, sequence), ("cmd", 4, command)]
    found = vector(fields, big(fields) + body)
    found["fields"]["body"] = body.hex()
    return found


def macro_meta():
    n = 2
    rest = [("header_version", 4, 2), ("attr", 2, 1), ("data_version", 8, 5), ("column_number", 2, n)]
    rest += [
        ("rowkey_column_number", 2, 1),
        ("column_index_scale", 2, 1),
        ("row_store_type", 2, 0),
        ("row_count", 4, 1234),
    ]
    rest += [("occupy_size", 4, 100_000), ("data_checksum", 8, 0xABCDEF), ("micro_block_count", 4, 7)]
    rest += [
        ("micro_block_data_offset", 4, 308),
        ("micro_block_index_offset", 4, 90_308),
        ("micro_block_endkey_offset", 4, 90_372),
    ]
    rest += [("column_checksum_0", 8, 11), ("column_checksum_1", 8, 12)]
    rest += [("end_key", 0, vi(1) + bytes((5, 5, 63, 0)) + vi(1234))]
    rest += [
        ("table_id", 8, 1001 << 40 | 50_001),
        ("data_seq", 8, 9),
        ("schema_version", 8, US),
        ("snapshot_version", 8, US + 1),
    ]
    rest += [("schema_rowkey_col_cnt", 2, 1), ("row_count_delta", 4, 0), ("micro_block_mark_deletion_offset", 4, 0)]
    rest += [("macro_block_deletion_flag", 1, 0), ("micro_block_delta_offset", 4, 0), ("partition_id", 8, 3)]
    rest += [
        ("column_checksum_method", 2, 1),
        ("progressive_merge_round", 8, 0),
        ("encrypt_id", 8, 0),
        ("master_key_id", 8, 0),
    ]
    rest += [("encrypt_key", 16, b""), ("contain_uncommitted_row", 1, 0), ("max_merged_trans_version", 8, US)]
    body = little(rest)
    fields = [("size", 4, 4 + len(body)), *rest]
    return vector(fields, number(4 + len(body), 4, "little") + body)


def schema_info():
    rest = [("version", 4, 1), ("column_number", 2, 2), ("rowkey_column_number", 2, 1), ("schema_version", 8, US)]
    rest += [
        ("schema_rowkey_col_cnt", 2, 1),
        ("compressor", 5, b"none\0"),
        ("column_id_0", 2, 16),
        ("column_id_1", 2, 17),
    ]
    rest += [("column_type_0", 4, bytes((5, 5, 63, 0))), ("column_type_1", 4, bytes((22, 2, 45, 0)))]
    rest += [("column_order_0", 4, 0), ("column_order_1", 4, -1)]
    body = little(rest)
    found = vector([("size", 4, 4 + len(body)), *rest], number(4 + len(body), 4, "little") + body)
    found["fields"]["compressor"] = "none"
    return found


def observer_store():
    payload = b"payload of a macro block"
    common = [("header_size", 4, 32), ("version", 4, 1), ("magic", 4, 1001), ("attr", 4, 1), ("data_version", 8, 5)]
    common += [("payload_size", 4, len(payload)), ("payload_checksum", 4, crc(payload))]
    bloom = [
        ("header_size", 4, 200),
        ("version", 4, 1),
        ("magic", 4, 1014),
        ("attr", 4, 0),
        ("table_id", 8, 1001 << 40 | 50_001),
    ]
    bloom += [("partition_id", 8, 3), ("data_version", 8, 5), ("rowkey_column_count", 4, 1), ("row_count", 4, 99)]
    bloom += [("occupy_size", 4, 5000), ("micro_block_count", 4, 1), ("data_offset", 4, 232), ("data_size", 4, 4768)]
    bloom += [("data_checksum", 8, 77), ("compressor_name", 128, b"none")]
    linked = [("header_size", 4, 56), ("version", 4, 1), ("magic", 4, 1019), ("attr", 4, 0), ("item_count", 4, 3)]
    linked += [
        ("fragment_offset", 4, 88),
        ("previous_0", 8, 1 << 60),
        ("previous_1", 8, 17),
        ("previous_2", 8, 0),
        ("previous_3", 8, 0),
    ]
    sequence = 7 | 2 << 32 | 1 << 43 | 1 << 44 | 1 << 46
    sequence_fields = {
        "sequence": 7,
        "parallel_idx": 2,
        "split_flag": 1,
        "block_type": 1,
        "merge_type": 1,
        "data_seq": sequence,
    }
    chain = crc(number(6, 8, "little"), crc(number(5, 8, "little")))
    macro_id = {"id_mode": 0, "version": 1, "block_index": 300}
    found = vector(common, little(common) + payload)
    found["fields"]["payload"] = payload.hex()
    bloomed = vector(bloom, little(bloom))
    bloomed["fields"]["compressor_name"] = "none"
    return {
        "ObSuperBlockHeaderV3 and content": ("2.2", "nesting of the objects inside is unconfirmed", [super_block()]),
        "ObMacroBlockCommonHeader": ("2.3", "32 bytes and the payload", [found]),
        "ObSSTableMacroBlockHeader": ("2.4", "240 bytes and the arrays", [sstable_header(lob=False)]),
        "ObLobMacroBlockHeader": (
            "2.5",
            "248 bytes and the arrays; that the arrays come last is unconfirmed",
            [sstable_header(lob=True)],
        ),
        "ObBloomFilterMacroBlockHeader": ("2.5", "200 bytes", [bloomed]),
        "ObLinkedMacroBlockHeaderV2": ("2.5", "56 bytes", [vector(linked, little(linked))]),
        "ObRecordHeaderV3 version 2": (
            "2.4",
            "32 bytes; length and version are a word each in the checksum",
            [record_header(1005, 16384, 4000, 0xFFFF1234), record_header(1010, 100, 100, 5)],
        ),
        "data_checksum of a block": (
            "2.4",
            "over the micro blocks' data checksums",
            [vector({"data_checksums": [5, 6]}, number(chain, 8, "little"))],
        ),
        "data_seq": ("2.4", "bit fields, low first", [vector(sequence_fields, number(sequence, 8, "little"))]),
        "MacroBlockId": ("2.1", "serialized", [vector(macro_id, vi(1 << 60) + vi(300) + vi(0) + vi(0))]),
        "ObMacroBlockMetaV2": (
            "2.6",
            "packed; that size counts itself, and the coding of the end key, are unconfirmed",
            [macro_meta()],
        ),
        "ObMacroBlockSchemaInfo": ("2.6", "packed; that size counts itself is unconfirmed", [schema_info()]),
        "slog record": (
            "2.7",
            "44 bytes and the body",
            [slog(102, b"", 1), slog(103, bytes(20), 2), slog(5, b"a record of a transaction", 3)],
        ),
        "ilog cursor": ("4.1", "32 bytes", [cursor(batch=False), cursor(batch=True)]),
        "ilog info item": ("4.1", "72 bytes of memory", [ilog_item()]),
        "ilog trailer": ("4.1", "40 bytes", [ilog_trailer()]),
    }


# --- data backup ---------------------------------------------------------------------------------------------------


def common_header(data_type, payload, align, data_version=1):
    fields = [
        ("data_type", 2, data_type),
        ("header_version", 2, 1),
        ("data_version", 2, data_version),
        ("compressor_type", 2, 1),
    ]
    sums = [
        ("data_length", 8, len(payload)),
        ("data_zlength", 8, len(payload)),
        ("data_checksum", 8, crc(payload)),
        ("align_length", 8, align),
    ]
    folded = data_type ^ 1 ^ 1 ^ 48 ^ words(little(sums))
    fields += [("header_length", 2, 48), ("header_checksum", 2, folded), ("", 4, 0), *sums]
    found = vector(fields, little(fields) + payload)
    found["fields"]["payload"] = payload.hex()
    return found


def meta_record():
    body = b"body of a meta"
    sums = [("data_length", 4, len(body)), ("data_checksum", 8, crc(body))]
    fields = [
        ("header_version", 2, 1),
        ("meta_type", 2, 4),
        ("header_checksum", 2, 1 ^ 4 ^ words(little(sums))),
        ("", 6, 0),
        *sums,
    ]
    found = vector(fields, vstr(little(fields) + body))
    found["fields"]["body"] = body.hex()
    return found


def named(names, values, *tail):
    return dict(zip(names.split(), values, strict=True)), [*map(vi, values), *tail]


def backup_info(*, date=None):
    names = (
        "full_backup_set_id inc_backup_set_id backup_data_version backup_snapshot_version backup_schema_version "
        "frozen_snapshot_version frozen_schema_version prev_full_backup_set_id prev_inc_backup_set_id "
        "prev_backup_data_version compatible cluster_version backup_type status encryption_mode"
    )
    values = [4, 6, 9, US, US - 1, US - 2, US - 3, 4, 5, 8, 2, 3 << 32 | 1 << 16, 2, 0, 0]
    fields, members = named(names, values, fixed("pw"), b"\0")
    fields |= {"passwd": "pw", "is_mark_deleted": False}
    if date:
        members.append(vi(date))
        fields["date"] = date
    return vector(fields, unis(*members))


def table_key():
    key = KEYS[0]
    pkey = number(key[0], 8, "big") + number(key[1], 4, "big") + number(key[2], 4, "big")
    data = unis(vi(7), pkey, vi(key[0]), unis(vi(20), vi(10), vi(30)), unis(vi(5)), unis(vi(21), vi(30), vi(31)))
    fields = {
        "table_type": 7,
        "pkey": list(key),
        "table_id": key[0],
        "multi_version_start": 20,
        "base_version": 10,
        "snapshot_version": 30,
        "version": 5,
        "start_log_ts": 21,
        "end_log_ts": 30,
        "max_log_ts": 31,
    }
    return fields, data


def data_backup():
    key_fields, key = table_key()
    group = vector(key_fields | {"total_macro_block_count": 300}, unis(key, vi(300)))
    macro_names = "sstable_macro_index data_version data_seq backup_set_id sub_task_id offset data_length"
    macro, macro_members = named(macro_names, [3, 9, 1 << 46 | 3, 4, 1, 4096 * 700, 8192])
    old_names = "table_id partition_id index_table_id " + macro_names
    old, old_members = named(old_names, [KEYS[0][0], 3, KEYS[0][0] + 1, 3, 9, 3, 4, 1, 4096 * 700, 8192])
    meta_index, meta_members = named(
        "meta_type table_id partition_id offset data_length task_id", [4, KEYS[0][0], 3, 48, 900, 12]
    )
    set_names = "backup_set_id backup_snapshot_version compatible pg_count macro_block_count input_bytes output_bytes"
    set_info, set_members = named(
        set_names + " cluster_version compress_type", [6, US, 2, 122, 18, 37_843_926, 1_710_280, 3 << 32 | 1 << 16, 1]
    )
    meta, block = b"macro meta and schema", b"macro block bytes"
    tenant, tenant_members = named(
        "tenant_id create_timestamp delete_timestamp compat_mode", [1001, 0, 0, 0], fixed("app"), vi(US)
    )
    place, place_members = named(
        "tenant_id backup_set_id backup_snapshot_version compat_mode",
        [1001, 6, US, 0],
        fixed("app"),
        fixed("F{1}@z1"),
        fixed("z1;z2"),
    )
    names = unis(vi(9), vi(1)) + unis(vstr(b"app"), b"\1", vi(2) + unis(vi(1001), vi(US)) + unis(vi(1007), vi(US + 1)))
    return {
        "ObBackupCommonHeader": (
            "2.1",
            "48 bytes and the payload",
            [common_header(10, b"", 4048), common_header(1, b"payload", 4096 - 55), common_header(6, b"info", 0, 0)],
        ),
        "ObBackupMetaHeader": ("2.4", "24 bytes and the body, as one vstr", [meta_record()]),
        "ObBackupMetaIndex": ("2.4", "", [vector(meta_index, unis(*meta_members))]),
        "ObBackupMacroData": (
            "2.4",
            "payload of a frame in a macro file",
            [vector({"meta": meta.hex(), "data": block.hex()}, unis(vstr(meta), vstr(block)))],
        ),
        "ObBackupTableKeyInfo": ("2.4", "", [group]),
        "ObBackupTableMacroIndex": ("2.4", "", [vector(macro, unis(*macro_members))]),
        "ObBackupMacroIndex": ("2.4", "2.2.6x", [vector(old, unis(*old_members))]),
        "ObExternBackupInfo": (
            "2.5",
            "the second with a date, as later versions write it",
            [backup_info(), backup_info(date=20220415)],
        ),
        "ObExternBackupSetInfo": ("2.5", "", [vector(set_info, unis(*set_members))]),
        "ObExternTenantInfo": (
            "2.5",
            "",
            [vector(tenant | {"tenant_name": "app", "backup_snapshot_version": US}, unis(*tenant_members))],
        ),
        "ObExternTenantLocalityInfo": (
            "2.5",
            "",
            [
                vector(
                    place | {"tenant_name": "app", "locality": "F{1}@z1", "primary_zone": "z1;z2"}, unis(*place_members)
                )
            ],
        ),
        "tenant_name_info": (
            "2.6",
            "the whole body",
            [vector({"schema_version": 9, "tenants": [["app", True, [[1001, US], [1007, US + 1]]]]}, names)],
        ),
        "ObPartitionKey": (
            "2.6",
            "16 bytes",
            [
                vector(
                    {"table_id": key[0], "part_id": key[1], "assist_id": key[2]},
                    number(key[0], 8, "big") + number(key[1], 4, "big") + number(key[2], 4, "big"),
                )
                for key in KEYS
            ],
        ),
        "ObFixedLengthString": ("2.6", "", [vector({"text": text}, fixed(text)) for text in ("", "ab")]),
        "varint": ("2.3", "", [vector({"value": value}, vi(value)) for value in (0, 127, 128, 300, US, -1)]),
        "vstr": ("2.3", "", [vector({"data": b"ab".hex()}, vstr(b"ab"))]),
    }


# --- files ---------------------------------------------------------------------------------------------------------


def documents():
    out = {}
    for name, structs in (
        ("log_archive", log_archive()),
        ("observer_store", observer_store()),
        ("data_backup", data_backup()),
    ):
        notes = name.replace("_", "-") + " notes"
        out[name] = {
            struct: {"source": f"{notes} {section}", "about": about, "vectors": vectors}
            for struct, (section, about, vectors) in structs.items()
        }
    return out


def text(document):
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    for stem, document in documents().items():
        (DATA / f"{stem}.json").write_text(text(document))
