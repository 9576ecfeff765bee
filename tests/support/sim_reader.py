"""Reads what the synthetic cluster wrote; shares no code with its writers or with mover's readers."""

from __future__ import annotations

import mmap
import struct

import lz4.block
import zstandard
from google_crc32c import extend
from independent_reader import murmur

FILE = 1 << 26


def crc(data, seed=0):
    """OceanBase's CRC-32C: start value ``seed``, no inversion at the end."""
    return extend(seed ^ 0xFFFFFFFF, bytes(data)) ^ 0xFFFFFFFF


def up(value, step=4096):
    return -(-value // step) * step


def clog_items(path):
    """(kind, offset, stored size, entry bytes) of a clog file up to where it ends: "entry", "info" or "end"."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert len(data) == FILE
    at, newest = 0, 0
    while True:
        magic = data[at : at + 2]
        if magic == b"PD":
            (size,) = struct.unpack_from(">q", data, at + 4)
            assert 12 <= size <= 4096 + 12
            at += size
            assert at % 4096 == 0
            continue
        if magic != b"LB":
            yield "end", at, 0, b""
            return
        _, version, kind, total, padding, timestamp, data_sum, meta_sum = struct.unpack_from(">hhiqqqqq", data, at)
        assert version == 1 and total % 4096 in (0, 512) and 0 <= padding < 4096
        assert meta_sum == crc(struct.pack("<hhiqqqq", 0x4C42, 1, kind, total, padding, timestamp, data_sum))
        if newest and timestamp < newest - 2_000_000:
            yield "end", at, 0, b""  # left over from an earlier life of the file
            return
        newest = timestamp
        end = at + total - padding
        if kind == 2:
            assert data_sum == crc(data[at + 48 : end])
            yield "info", at, end - at, data[at + 48 : end]
            trailer = data[FILE - 512 :]
            fields = struct.unpack_from(">hhiqqqqq", trailer)
            assert fields[2] == 3
            version, start, following = struct.unpack_from(">hii", trailer, 48)
            assert (version, start, following) == (1, at, int(path.name) + 1)
            assert fields[6] == crc(struct.pack("<ii", start, following))
            return
        assert kind == 1 and data_sum == 0
        at += 48
        while at < end:
            magic = data[at : at + 2]
            if magic == b"PD":
                at += struct.unpack_from(">q", data, at + 4)[0]
            elif magic[0] == 0x43:
                whole, packed = struct.unpack_from(">ii", data, at + 2)
                stored = data[at + 10 : at + 10 + packed]
                if magic == b"C\x02":
                    entry = lz4.block.decompress(stored, uncompressed_size=whole)
                else:
                    assert magic == b"C\x03"
                    entry = zstandard.ZstdDecompressor().decompress(stored)
                assert len(entry) == whole
                yield "entry", at, 10 + packed, entry
                at += 10 + packed
            else:
                assert magic == b"ER"
                size = 105 + struct.unpack_from(">q", data, at + 32)[0]
                yield "entry", at, size, data[at : at + size]
                at += size
        assert at == end


def check_entry(entry):
    """(key, log id, proposal, submit time, data checksum) of an entry whose checksums hold."""
    magic, version, kind = struct.unpack_from(">HHI", entry)
    table, part, count = struct.unpack_from(">Qii", entry, 8)
    log_id, length, generated, epoch = struct.unpack_from(">Qqqq", entry, 24)
    ip_version, server, proposed = struct.unpack_from(">bqq", entry, 56)
    submit, data_sum, freeze, head_sum = struct.unpack_from(">qqqq", entry, 73)
    assert (magic, version, ip_version) == (0x4552, 1, 4)
    assert length == len(entry) - 105 and data_sum == crc(entry[105:])
    hashed = murmur(struct.pack("<Q", table), 0)
    hashed = murmur(struct.pack("<i", part), hashed)
    hashed = murmur(struct.pack("<i", count), hashed)
    memory = struct.pack(
        "<HHIQiiQQqqq", magic, version, kind, table, part, count, hashed, log_id, length, generated, epoch
    )
    memory += struct.pack("<i", 4) + struct.pack("<I", server >> 32) + bytes(12)
    memory += struct.pack("<iqqqq", server & 0xFFFFFFFF, proposed, submit, data_sum, freeze)
    assert len(memory) == 120 and head_sum == crc(memory)
    return (table, part, count), log_id, (proposed, server), submit, data_sum


def read_clog(directory, first=0):
    """All entries of the clog files from ``first``: {(key, log id): [(proposal, file, offset, size, entry), ...]}."""
    found = {}
    ends = {}
    for path in sorted(directory.iterdir(), key=lambda path: int(path.name)):
        if int(path.name) < first:
            continue
        for kind, offset, size, entry in clog_items(path):
            if kind != "entry":
                ends[int(path.name)] = kind, offset
                continue
            key, log_id, proposal, *_ = check_entry(entry)
            found.setdefault((key, log_id), []).append((proposal, int(path.name), offset, size, entry))
    return found, ends


def read_ilog(path):
    """{key: [(log id, file, offset, size, accum, submit), ...]} of an ilog file whose checksums hold."""
    data = path.read_bytes()
    fields = struct.unpack_from(">hhiiiiiqq", data, len(data) - 512)
    magic, _, _, info, info_size, members, members_size, content, own = fields
    assert magic == 0x4C43
    assert own == crc(struct.pack("<hhiiiiiq", *fields[:-1]))
    assert content == crc(data[: members + members_size])
    assert len(data) == up(info) + up(max(info_size + members_size, 1 << 16)) + 4096
    (length,) = struct.unpack_from(">q", data, info)
    assert length == info_size - 8 and length % 72 == 0
    out = {}
    for at in range(info + 8, info + info_size, 72):
        if data[at] == 0:
            continue
        table, part, count, _, low, high, low_ts, high_ts, start = struct.unpack_from("<QiiQQQqqi", data, at + 8)
        assert start + 32 * (high - low + 1) <= info
        run = []
        for log_id in range(low, high + 1):
            file, offset, size, pad, accum, submit = struct.unpack_from(">iiiiqq", data, start + 32 * (log_id - low))
            assert pad == 0
            run.append((log_id, file, offset, size, accum, submit))
        assert (run[0][5], run[-1][5]) == (low_ts, high_ts)
        out[table, part, count] = run
    return out
