"""A log entry: header, body, and the form a server stores it in.

Sources: log-archive notes 3.3 (compressed items) and 3.4 (header, log types).
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from typing import Any

import lz4.block

from mover.store.sim.identity import RPC_PORT, PgKey, server_word
from mover.store.sim.packing import content, crc

HEADER_BYTES = 105
SUBMIT = 201
AGGREGATE = 202
NOP = 103
START_MEMBERSHIP = 104
TRANSACTION = 1 << 31
"""Flag in the log type of logs that belong to a transaction."""

_LZ4, _ZSTD_138 = 0x4302, 0x4303


@dataclass(frozen=True, slots=True)
class Entry:
    """One log as one leader proposed it. ``body_key`` and the seed give the body's bytes; times in µs."""

    log_id: int
    log_type: int
    generation_ts: int
    epoch_id: int
    proposal_server: int
    proposal_ts: int
    submit_ts: int
    freeze_version: int
    body_key: str
    body_bytes: int
    compressible: bool

    def body(self, seed: int) -> bytes:
        """The body: a storage log type first where the log type has one, then content."""
        head = struct.pack(">q", 1) if self.log_type & ~TRANSACTION in (SUBMIT, AGGREGATE) else b""
        size = max(self.body_bytes - len(head), 0)
        if self.in_runs:
            return head + content(f"{seed}/{self.body_key}", size // 4) + bytes(size - size // 4)
        return head + content(f"{seed}/{self.body_key}", size, repeats=8 if self.compressible and size >= 64 else 1)

    @property
    def in_runs(self) -> bool:
        """Is most of the body one run of zeros? The zstd frames written here save nothing else."""
        return self.compressible and self.log_id % 8 == 0

    def record(self) -> dict[str, Any]:
        return asdict(self)


def pack_header(key: PgKey, entry: Entry, data_len: int, data_checksum: int) -> bytes:
    """The 105 bytes of the header: big-endian, with the checksum over the 120 bytes it has in memory."""
    ip = server_word(entry.proposal_server)
    memory = (
        struct.pack("<HHI", 0x4552, 1, entry.log_type)
        + key.memory
        + struct.pack("<Qqqq", entry.log_id, data_len, entry.generation_ts, entry.epoch_id)
        + struct.pack("<iI12xiq", 4, ip, RPC_PORT, entry.proposal_ts)
        + struct.pack("<qqq", entry.submit_ts, data_checksum, entry.freeze_version)
    )
    return b"".join(
        (
            struct.pack(">HHI", 0x4552, 1, entry.log_type),
            key.disk,
            struct.pack(">Qqqq", entry.log_id, data_len, entry.generation_ts, entry.epoch_id),
            struct.pack(">bqq", 4, ip << 32 | RPC_PORT, entry.proposal_ts),
            struct.pack(">qqqq", entry.submit_ts, data_checksum, entry.freeze_version, crc(memory)),
        )
    )


def pack_entry(key: PgKey, entry: Entry, seed: int) -> tuple[bytes, int]:
    """(header and body, the body's checksum)."""
    body = entry.body(seed)
    checksum = crc(body)
    return pack_header(key, entry, len(body), checksum) + body, checksum


def zstd_frame(data: bytes) -> bytes:
    """A zstd frame of ``data`` by hand: runs of one byte as RLE blocks, the rest raw (RFC 8878)."""
    out = bytearray(b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)))  # single segment, 4 bytes of content size
    pieces: list[tuple[int, bytes, int]] = []
    at = 0
    while at < len(data):
        run = at
        while run < len(data) and data[run] == data[at] and run - at < 1 << 17:
            run += 1
        if run - at >= 16:
            pieces.append((1, data[at : at + 1], run - at))
            at = run
            continue
        end = min(at + (1 << 17), len(data))
        for probe in range(at, end - 16, 16):
            if data[probe : probe + 16] == data[probe : probe + 1] * 16:
                end = max(probe, run)
                break
        pieces.append((0, data[at:end], end - at))
        at = end
    for index, (kind, stored, size) in enumerate(pieces):
        last = index == len(pieces) - 1
        out += struct.pack("<I", size << 3 | kind << 1 | last)[:3] + stored
    return bytes(out)


def compressed_item(entry: bytes, *, zstd: bool) -> bytes:
    """A compressed item around a whole entry: 10-byte header and LZ4 block or zstd frame."""
    packed = zstd_frame(entry) if zstd else lz4.block.compress(entry, store_size=False)
    return struct.pack(">hii", _ZSTD_138 if zstd else _LZ4, len(entry), len(packed)) + packed
