"""A directory that looks like a small 3.1 cluster, made from the format description alone: catalog tables in a file,
clog and ilog of a server."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from clog_log import ClogFile, chained, crc, entry, packed

Key = tuple[int, int, int]
T = 1_700_000_000_000_000


def pg(tenant: int, number: int, partition: int = 0, count: int = 1) -> Key:
    return (tenant << 40 | 50000 + number, partition, count)


@dataclass
class Log:
    """What a PG has: the truth."""

    entries: list[bytes] = field(default_factory=list)  # confirmed, by log id from 1 on
    accum: list[int] = field(default_factory=list)
    submit: list[int] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)  # clog file, offset, size of each


def as_table(rows: list[dict[str, object]]) -> dict[str, object]:
    names = list(rows[0]) if rows else []
    return {"columns": [[name, "bigint"] for name in names], "rows": [[row[name] for name in names] for row in rows]}


class TinyCluster:
    """One or more servers; every PG has its replica on one of them."""

    def __init__(self, directory: Path, *, tenants: int = 2, pgs: int = 2, name: str = "tiny") -> None:
        self.directory = directory
        self.name = name
        self.now = T
        self.file_id = 1
        self.clog = ClogFile()
        self.stale = b""
        self.logs: dict[Key, Log] = {}
        self.confirmed: dict[Key, int] = {}
        self.tenants = {1: "sys"} | {1000 + n: f"t{n}" for n in range(1, tenants + 1)}
        self.store = directory / "observer_1" / "store"
        for part in ("clog", "ilog", "sstable"):
            (self.store / part).mkdir(parents=True)
        for tenant in list(self.tenants)[1:]:
            for number in range(1, pgs + 1):
                self.create(pg(tenant, number))
        self.save()

    @property
    def url(self) -> str:
        return f"sim://{self.directory}"

    def create(self, key: Key) -> None:
        self.logs[key] = Log()
        self.confirmed[key] = 0

    def propose(self, key: Key, log_id: int, body: bytes, *, proposal: int = 1, kind: int = 0) -> tuple[bytes, bytes]:
        """(entry, item in the clog) of a proposal; nothing is written."""
        self.now += 100
        raw = entry(key, log_id, body, submit=self.now, proposal=proposal, epoch=7)
        return raw, packed(raw, kind) if kind else raw

    def write(self, items: list[tuple[Key, bytes, bytes]]) -> None:
        """One block of (PG, entry, item); each becomes the next log of its PG."""
        at = len(self.clog.data) + 48
        for key, raw, item in items:
            log = self.logs[key]
            log.entries.append(raw)
            log.accum.append(chained(crc(raw[105:]), log.accum[-1] if log.accum else 0))
            log.submit.append(int.from_bytes(raw[73:81], "big"))
            log.places.append((self.file_id, at, len(item)))
            self.clog.maxima[key] = len(log.entries)
            at += len(item)
        self.clog.add([item for _, _, item in items], self.now)
        self.save()

    def append(self, key: Key, *bodies: bytes, kind: int = 0, confirm: bool = True) -> None:
        """Write logs of one PG, one block for all, and say that they are confirmed."""
        first = len(self.logs[key].entries) + 1
        self.write([(key, *self.propose(key, first + n, body, kind=kind)) for n, body in enumerate(bodies)])
        if confirm:
            self.confirm(key)

    def confirm(self, key: Key, upto: int | None = None) -> None:
        self.confirmed[key] = len(self.logs[key].entries) if upto is None else upto
        self.save_catalog()

    def switch(self, stale: bytes = b"") -> None:
        """Close the file and go on in the next, which held ``stale`` before."""
        path = self.store / "clog" / str(self.file_id)
        path.write_bytes(self.clog.closed(self.file_id + 1, self.now, self.stale))
        self.file_id += 1
        self.clog, self.stale = ClogFile(), stale
        self.save()

    def recycle(self, file_id: int) -> None:
        (self.store / "clog" / str(file_id)).unlink()

    def save(self) -> None:
        path = self.store / "clog" / str(self.file_id)
        data = self.clog.open(self.stale)
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.truncate(64 << 20)
            file.write(data)
        self.save_catalog()

    def save_ilog(
        self, number: int, upto: dict[Key, tuple[int, int]], batch: frozenset[tuple[Key, int]] = frozenset()
    ) -> None:
        """ilog file ``number`` with logs low to high of each PG."""
        cursors, items = bytearray(), bytearray()
        for key in sorted(upto):
            low, high = upto[key]
            log = self.logs[key]
            start = len(cursors)
            for log_id in range(low, high + 1):
                file_id, offset, size = log.places[log_id - 1]
                submit = log.submit[log_id - 1] | ((key, log_id) in batch) << 63
                cursors += struct.pack(">iiiiqQ", file_id, offset, size, 0, log.accum[log_id - 1], submit)
            items += struct.pack(
                "<?7xQiiQQQqqi4x", True, *key, 0, low, high, log.submit[low - 1], log.submit[high - 1], start
            )
        items += struct.pack("<?7xQiiQQQqqi4x", False, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        cursors += bytes(-len(cursors) % 4096)
        info = struct.pack(">q", len(items)) + items
        members = struct.pack(">q", 0)
        area = info + members
        body = bytes(cursors + area.ljust(max(65536, len(area) + -len(area) % 4096), b"\0"))
        info_at, members_at = len(cursors), len(cursors) + len(info)
        fields = (0x4C43, 0, 0, info_at, len(info), members_at, len(members), crc(body[: members_at + len(members)]))
        trailer = struct.pack(">hhiiiiiq", *fields) + struct.pack(">q", crc(struct.pack("<hhiiiiiq", *fields)))
        data = body + bytes(4096 - 512) + trailer.ljust(512, b"\0")
        temporary = self.store / "ilog" / f"{number}.tmp"
        temporary.write_bytes(data)
        os.replace(temporary, self.store / "ilog" / str(number))

    def tables(self) -> dict[str, list[dict[str, object]]]:
        server = {"svr_ip": "127.0.0.1", "svr_port": 2882}
        logs, states, partitions = [], [], []
        for key in self.logs:
            part = {"table_id": key[0], "partition_idx": key[1]}
            more = {"role": "LEADER", "replica_type": 0, "is_offline": 0, "is_in_sync": 1, "is_need_rebuild": 0}
            logs.append(server | part | {"partition_cnt": key[2]} | more)
            confirmed = self.confirmed[key]
            states.append(server | part | {"max_confirmed_log_id": confirmed, "last_replay_log_id": confirmed})
            service = self.now if confirmed == len(self.logs[key].entries) else 0
            partitions.append(server | part | {"tg_id": key[0], "pg_idx": key[1], "min_log_service_ts": service})
        tenant = {"compatibility_mode": 0, "locality": "FULL{1}@z1", "primary_zone": "z1"}
        return {
            "__all_server": [server | {"inner_port": 2881, "id": 1, "status": "active", "build_version": "3.1.0_x"}],
            "__all_virtual_cluster": [{"cluster_id": 1, "cluster_name": self.name}],
            "__all_tenant": [{"tenant_id": i, "tenant_name": name} | tenant for i, name in self.tenants.items()],
            "__all_virtual_sys_parameter_stat": [server | {"name": "data_dir", "value": "/srv/store"}],
            "__all_virtual_clog_stat": logs,
            "__all_virtual_pg_partition_info": partitions,
            "__all_virtual_partition_replay_status": states,
            "__all_freeze_info": [{"frozen_version": 2, "frozen_timestamp": T, "schema_version": T}],
        }

    def save_catalog(self) -> None:
        temporary = self.directory / "catalog.json.tmp"
        temporary.write_text(json.dumps({"tables": {name: as_table(rows) for name, rows in self.tables().items()}}))
        os.replace(temporary, self.directory / "catalog.json")
