"""The log archive side: data files, index files, archive keys. Log-archive notes 2.1 to 2.5."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any

import lz4.block

from mover.store.sim.entry import NOP, SUBMIT, TRANSACTION, Entry, pack_entry, pack_header, zstd_frame
from mover.store.sim.identity import PgKey
from mover.store.sim.packing import crc, dice, unis, vint
from tree31.spec import PIECE_US, TreeSpec

BATCH_BIT = 1 << 63
KICKOFF = 302


@dataclass
class PgLog:
    """A PG's log as it is archived: where it is, and what a round began with."""

    key: PgKey
    next_id: int = 1
    accum: int = 0
    submit: int = 0
    epoch: int = 0
    round_start: tuple[int, ...] = ()
    files: list[str] = field(default_factory=list)


def block(fields: dict[str, int], payload: bytes, at: int) -> bytes:
    """Block meta, payload, start of the block."""
    values = (
        104 + len(payload),
        *(
            fields[name]
            for name in ("timestamp", "epoch", "accum", "min_id", "min_ts", "max_id", "checkpoint", "max_ts")
        ),
        fields["input"],
        0,
        crc(payload),
    )
    meta = struct.pack("<hhi11q", 0x4142, 1, *values)
    return struct.pack(">hhi11qq", 0x4142, 1, *values, crc(meta)) + payload + struct.pack(">i", at)


def index_record(fields: tuple[int, ...], *, valid: bool = True) -> bytes:
    """144 bytes: data file id, then the 15 numbers of the notes in order."""
    values = (0x4149, 144, 1, int(valid), *fields)
    return struct.pack(">hhhh16qq", *values, crc(struct.pack("<hhhh16q", *values)))


def archive_key(record: bytes, *, first_piece: bool, max_index_file: int) -> bytes:
    """168 bytes, generation B. The index record in it is that of the end of the piece before."""
    values = struct.unpack(">hhhh16qq", record)
    memory = struct.pack("<hhhhQ", 0x414B, 1, first_piece, 0, max_index_file) + struct.pack("<hhhh16qq", *values)
    head = struct.pack(">hhhhQ", 0x414B, 1, first_piece, 0, max_index_file)
    return head + record + struct.pack(">q", crc(memory))


def chunk(payload: bytes, kind: int) -> bytes:
    """A compressed chunk, or the payload as it is when nothing is saved: 2 LZ4, 8 zstd 1.3.8."""
    packed = lz4.block.compress(payload, store_size=False) if kind == 2 else zstd_frame(payload)
    if 16 + len(packed) >= len(payload):
        return payload
    return struct.pack(">hhiii", 0x4343, 1, kind, len(payload), len(packed)) + packed


class PieceWriter:
    """Writes the log of one PG in one piece (or round) into ``files``."""

    def __init__(self, spec: TreeSpec, files: dict[str, bytes], directory: str) -> None:
        self._spec = spec
        self._files = files
        self._directory = directory

    def pg(self, log: PgLog, start_ts: int, *, first: bool, closed: bool) -> dict[str, Any]:
        """The data files of a piece; with ``closed`` the newest has its index record. What is true of it."""
        spec, key = self._spec, log.key
        choose = dice(spec.seed, "archive", self._directory, key.order)
        place = f"{key.table_id}/{key.part_id}"
        if first:
            log.epoch = start_ts
            log.submit = max(log.submit, start_ts)
            # Start: time, log id, snapshot; of the log before it: submit time, epoch, checksum.
            log.round_start = (start_ts, log.next_id, start_ts - 5, log.submit, log.epoch, log.accum)
        data_id, content, records = 1, b"", []
        truth: list[list[Any]] = []
        data_files = [f"{self._directory}/data/{place}/1"]
        previous_ts = log.submit
        state: dict[str, int] = {}
        if first:
            kick = Entry(log.next_id, KICKOFF, start_ts, 0, 0, 0, start_ts, 1 << 32, "", 0, False)
            body = unis(vint(1), vint(start_ts), vint(start_ts), vint(start_ts - 5))
            payload = pack_header(key, kick, len(body), crc(body)) + body
            before = log.next_id - 1
            state = {
                "timestamp": start_ts,
                "epoch": log.epoch,
                "accum": log.accum,
                "min_id": before,
                "min_ts": previous_ts,
            }
            state |= {"max_id": before, "checkpoint": start_ts, "max_ts": previous_ts, "input": len(payload)}
            content += block(state, payload, 0)
        remaining, in_file = spec.logs, 0
        first_in_file: tuple[int, int] | None = None
        checkpoint = start_ts
        while remaining:
            count = min(remaining, choose.randint(2, 8))
            remaining -= count
            nops = choose.random() < 0.15
            raw = b""
            if choose.random() < 0.1:
                log.epoch += 1_000_000
            for _ in range(count):
                entry = self._entry(log, choose, nop=nops)
                packed, checksum = pack_entry(key, entry, spec.seed)
                log.accum = crc(struct.pack("<q", checksum), log.accum)
                log.submit = entry.submit_ts
                first_in_file = first_in_file or (entry.log_id, entry.submit_ts)
                truth.append(
                    [entry.log_id, entry.submit_ts, log.accum, hashlib.sha256(packed).hexdigest(), len(packed)]
                )
                if not nops and choose.random() < 0.2:
                    stamp = struct.pack(">Q", entry.submit_ts | BATCH_BIT)
                    packed = packed[:73] + stamp + packed[81:]
                raw += packed
                log.next_id += 1
            payload = chunk(raw, choose.choice((2, 8))) if choose.random() < 0.7 else raw
            if not nops:
                previous_ts = log.submit
            checkpoint = max(checkpoint, log.submit - 1)
            assert first_in_file is not None
            state = {"timestamp": log.submit + 50, "epoch": log.epoch, "accum": log.accum, "min_id": first_in_file[0]}
            state |= {"min_ts": first_in_file[1], "max_id": log.next_id - 1, "checkpoint": checkpoint}
            state |= {"max_ts": previous_ts, "input": len(raw)}
            content += block(state, payload, len(content))
            in_file += 1
            if in_file >= spec.blocks_per_file and remaining:
                self._files[data_files[-1]] = content
                records.append(self._record(data_id, log, state, first_in_file))
                data_id, content, in_file, first_in_file = data_id + 1, b"", 0, None
                data_files.append(f"{self._directory}/data/{place}/{data_id}")
                if spec.invalid_record and data_id == 2 and key.part_id == 0:
                    # A leader that could not go on left a file with half a block.
                    self._files[data_files[-1]] = block(state, b"", 0)[:60]
                    records.append(self._record(data_id, log, state, (state["max_id"], state["min_ts"]), valid=False))
                    data_id += 1
                    data_files.append(f"{self._directory}/data/{place}/{data_id}")
        self._files[data_files[-1]] = content
        last = self._record(data_id, log, state, first_in_file or (0, 0))
        if closed:
            records.append(last)
        if records:
            self._files[f"{self._directory}/index/{place}/1"] = b"".join(records)
        return {
            "pg": key.order,
            "logs": truth,
            "first_log_id": truth[0][0],
            "last_log_id": log.next_id - 1,
            "start_accum_checksum": log.round_start[5],
            "checkpoint_ts": checkpoint,
            "data_files": data_files,
            "end": last,
        }

    def key_file(self, log: PgLog, end: bytes | None, *, first_piece: bool, max_index_file: int) -> None:
        path = f"{self._directory}/archive_key/{log.key.table_id}_{log.key.part_id}"
        if not self._spec.later:
            self._files[path] = b""
            return
        record = end or self._record(0, log, {}, (0, 0))
        self._files[path] = archive_key(record, first_piece=first_piece, max_index_file=max_index_file)

    @staticmethod
    def _record(
        data_id: int, log: PgLog, state: dict[str, int], first: tuple[int, int], *, valid: bool = True
    ) -> bytes:
        known = {"epoch": 0, "accum": 0, "max_id": 0, "checkpoint": 0, "max_ts": 0} | state
        numbers = (data_id, 0, 0, known["epoch"], known["accum"], *first)
        ends = (known["max_id"], known["checkpoint"], known["max_ts"])
        return index_record((*numbers, *ends, *log.round_start), valid=valid)

    def _entry(self, log: PgLog, choose: Any, *, nop: bool) -> Entry:
        submit = log.submit + choose.randint(1, 2 * PIECE_US // self._spec.logs)
        size = 8 if nop else 16 + int(choose.expovariate(1 / 300))
        return Entry(
            log_id=log.next_id,
            log_type=NOP if nop else SUBMIT | TRANSACTION,
            generation_ts=submit,
            epoch_id=log.epoch,
            proposal_server=1,
            proposal_ts=log.epoch,
            submit_ts=submit,
            freeze_version=1 << 32,
            body_key=f"{log.key.order}/{log.next_id}/{log.epoch}",
            body_bytes=size,
            compressible=choose.random() < 0.5,
        )
