"""A server's log on disk: the batch it is about to write, and where it has written what no ilog names yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mover.store.sim.clog import MAX_BATCH, ClogWriter
from mover.store.sim.identity import PgKey
from mover.store.sim.ilog import Cursor, ilog_file


@dataclass
class ServerLog:
    """clog and ilog of one server.

    ``placed``: per PG and log id the newest copy, (file, offset, size, submit time), until an ilog has its cursor.
    ``indexed``: the cursors of the newest ilog, which the next one replaces.
    """

    writer: ClogWriter
    ilog_directory: Path
    ilog_id: int = 1
    batch: list[tuple[PgKey, int, int, bytes]] = field(default_factory=list)
    placed: dict[PgKey, dict[int, tuple[int, int, int, int]]] = field(default_factory=dict)
    indexed: dict[PgKey, list[Cursor]] = field(default_factory=dict)
    first_file: int = 1
    file_last: dict[int, dict[PgKey, int]] = field(default_factory=dict)

    def add(self, key: PgKey, log_id: int, submit_ts: int, item: bytes) -> None:
        self.batch.append((key, log_id, submit_ts, item))

    def flush(self, timestamp: int, *, inner_padding: bool = False) -> int:
        """Write the batch as blocks; bytes written."""
        written = 0
        while self.batch:
            size = 0
            count = 0
            for *_, item in self.batch:
                if count and size + len(item) > MAX_BATCH - 8192:
                    break
                size += len(item)
                count += 1
            group, self.batch = self.batch[:count], self.batch[count:]
            writer = self.writer
            if not writer.live or writer.full(size):
                self.finish_file(timestamp)
                writer.open_next(recycle=True)
            offsets = writer.write_block([item for *_, item in group], timestamp, inner_padding=inner_padding)
            for (key, log_id, submit_ts, item), offset in zip(group, offsets, strict=True):
                self.placed.setdefault(key, {})[log_id] = (writer.file_id, offset, len(item), submit_ts)
                writer.last[key] = max(writer.last.get(key, 0), log_id)
                writer.max_submit_ts = max(writer.max_submit_ts, submit_ts)
            written += size
        return written

    def finish_file(self, timestamp: int) -> None:
        """Complete the live file, if there is one, and remember what is in it."""
        if self.writer.live:
            self.writer.finish(timestamp)
            self.file_last[self.writer.file_id] = dict(self.writer.last)

    def recycle(self, count: int) -> dict[PgKey, int]:
        """Give up to ``count`` of the oldest finished files up; the first log id behind them of each PG in them.

        A file with a log that no ilog names is kept.
        """
        first: dict[PgKey, int] = {}
        needed = {place[0] for places in self.placed.values() for place in places.values()}
        for _ in range(min(count, self.writer.file_id - self.first_file)):
            if self.first_file in needed:
                break
            for key, log_id in self.file_last.pop(self.first_file, {}).items():
                first[key] = log_id + 1
            self.writer.pool.append(self.first_file)
            self.first_file += 1
        return first

    def index(self, bounds: dict[PgKey, tuple[int, dict[int, int]]], limit: int) -> None:
        """Write the newest ilog again with what is confirmed now; a new one when it would have more than ``limit``.

        ``bounds``: per PG the last log id to index, and the running checksum at each log id.
        """
        fresh: dict[PgKey, list[Cursor]] = {}
        for key, (bound, accums) in bounds.items():
            placed = self.placed.get(key, {})
            have = self.indexed.get(key)
            log_id = have[-1].log_id + 1 if have else min(placed, default=0)
            while log_id in placed and log_id <= bound:
                file_id, offset, size, submit_ts = placed.pop(log_id)
                cursor = Cursor(log_id, file_id, offset, size, accums[log_id], submit_ts)
                fresh.setdefault(key, []).append(cursor)
                log_id += 1
        if not fresh:
            return
        while fresh:
            room = limit - sum(map(len, self.indexed.values()))
            for key in sorted(fresh, key=lambda key: key.order):
                part = fresh[key][: max(room, 0)]
                if part:
                    self.indexed.setdefault(key, []).extend(part)
                    room -= len(part)
                    if len(part) == len(fresh[key]):
                        del fresh[key]
                    else:
                        fresh[key] = fresh[key][len(part) :]
            self._write()
            if fresh:
                self.ilog_id += 1
                self.indexed = {}

    def _write(self) -> None:
        temporary = self.ilog_directory / f"{self.ilog_id}.tmp"
        temporary.write_bytes(ilog_file(self.indexed))
        temporary.replace(self.ilog_directory / str(self.ilog_id))

    def record(self) -> dict[str, Any]:
        writer = self.writer
        return {
            "file_id": writer.file_id,
            "position": writer.position,
            "live": writer.live,
            "pool": writer.pool,
            "last": [[*key.order, log_id] for key, log_id in writer.last.items()],
            "max_submit_ts": writer.max_submit_ts,
            "ilog_id": self.ilog_id,
            "first_file": self.first_file,
            "file_last": [
                [file_id, *key.order, log_id]
                for file_id, last in self.file_last.items()
                for key, log_id in last.items()
            ],
            "placed": [
                [*key.order, log_id, *place] for key, places in self.placed.items() for log_id, place in places.items()
            ],
            "indexed": [[*key.order, list(map(list, run))] for key, run in self.indexed.items()],
        }

    @classmethod
    def of(cls, record: dict[str, Any], store: Path, fill: int) -> ServerLog:
        writer = ClogWriter(store / "clog", record["file_id"], record["position"], fill, record["pool"])
        writer.max_submit_ts = record["max_submit_ts"]
        writer.live = record["live"]
        writer.last = {PgKey(*key): log_id for *key, log_id in record["last"]}
        log = cls(writer, store / "ilog", record["ilog_id"], first_file=record["first_file"])
        for file_id, table, part, count, log_id in record["file_last"]:
            log.file_last.setdefault(file_id, {})[PgKey(table, part, count)] = log_id
        for table, part, count, log_id, *place in record["placed"]:
            log.placed.setdefault(PgKey(table, part, count), {})[log_id] = tuple(place)
        for table, part, count, run in record["indexed"]:
            log.indexed[PgKey(table, part, count)] = [Cursor(*one) for one in run]
        return log
