"""Puts a tree together.

``Tree.truth``:

    {"layout", "tenants": [{"tenant_id", "name"}],
     "sets": [{"tenant_id", "set_id", "full_id", "type" full | inc, "status" success | failed | doing, "snapshot",
               "data_version", "directory", "pgs": [{"pg": (table, part, cnt), "blocks": [{index_id, data_version,
               data_seq, backup_set_id, sub_task_id, offset, data_length, sha256, minor, path}, ...]}, ...]}],
     "rounds": [{"tenant_id", "round", "piece", "directory", "status" stop | doing, "start_ts", "checkpoint_ts",
                 "pgs": [{"pg", "logs": [[log_id, submit_ts, accum, sha256, bytes], ...], "first_log_id",
                 "last_log_id", "start_accum_checksum", "checkpoint_ts", "data_files"}, ...]}]}

A block's sha256 is of the macro block as stored (occupied bytes); a log's of its entry with the batch bit cleared. A
round with pieces has an item per piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mover.store.sim.identity import TABLEGROUP, PgKey
from tree31 import infos
from tree31.archives import PgLog, PieceWriter
from tree31.datasets import PgData, SetWriter
from tree31.infos import BackupEntry, PieceEntry, RoundEntry
from tree31.spec import DAY, FIRST_TENANT, PIECE_US, ROOT, US, TreeSpec, date_of

SUCCESS, DOING, FAILED = 0, 1, 2
_STATUS = {SUCCESS: "success", DOING: "doing", FAILED: "failed"}


@dataclass
class Tree:
    """Files of a backup destination, and what is true of them."""

    spec: TreeSpec
    files: dict[str, bytes]
    truth: dict[str, Any]

    def write(self, directory: Path) -> None:
        """All files below ``directory``."""
        for path, content in self.files.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def copy(self) -> Tree:
        """Another tree with the same files; the truth is shared."""
        return Tree(self.spec, dict(self.files), self.truth)

    def paths(self, *parts: str) -> list[str]:
        """Paths that contain all of ``parts``, sorted."""
        return sorted(path for path in self.files if all(part in path for part in parts))


def build(spec: TreeSpec) -> Tree:
    """The tree of ``spec``; the same spec gives the same bytes."""
    files: dict[str, bytes] = {}
    tenants = [(FIRST_TENANT + at, f"tenant_{FIRST_TENANT + at}") for at in range(spec.tenants)]
    truth: dict[str, Any] = {"layout": spec.layout, "sets": [], "rounds": []}
    truth["tenants"] = [{"tenant_id": number, "name": name} for number, name in tenants]
    starts = _rounds(spec, files, truth, tenants)
    _sets(spec, files, truth, tenants, starts[-1] if starts else US)
    files[f"{ROOT}/tenant_info"] = infos.tenant_infos(tenants, US)
    files[f"{ROOT}/tenant_name_info"] = infos.tenant_names(tenants, US)
    return Tree(spec, files, truth)


def pg_keys(spec: TreeSpec, tenant: int) -> list[PgKey]:
    """A system table, partitions of one table, and at last a tablegroup."""
    base = tenant << 40
    keys = [PgKey(base | 3, 0, 0)]
    keys += [PgKey(base | 50_001, at, max(spec.pgs - 2, 1)) for at in range(max(spec.pgs - 2, 0))]
    if spec.pgs > 1:
        keys.append(PgKey(base | TABLEGROUP | 1001, 0, 0))
    return keys[: spec.pgs]


def _indexes(key: PgKey) -> tuple[int, ...]:
    base = key.table_id & ~((1 << 40) - 1)
    if key.table_id & TABLEGROUP:
        return base | 50_101, base | 50_102
    if key.table_id & 0xFFFFFFFFFF > 50_000:
        return key.table_id, key.table_id + 1000
    return (key.table_id,)


def _sets(
    spec: TreeSpec, files: dict[str, bytes], truth: dict[str, Any], tenants: list[tuple[int, str]], start: int
) -> None:
    cluster: list[BackupEntry] = []
    for tenant, name in tenants:
        base = f"{ROOT}/{tenant}/data"
        pgs = [PgData(key, _indexes(key)) for key in pg_keys(spec, tenant)]
        entries: list[BackupEntry] = []
        stats: dict[str, list[tuple[int, int, int, int]]] = {}
        for set_id, kind in enumerate(spec.sets, 1):
            good = [one for one in entries if one.status == SUCCESS]
            full = kind == "full" or not good
            status = {"failed": FAILED, "doing": DOING}.get(kind, SUCCESS)
            snapshot = start + 60_000_000 * set_id
            prev = (0, 0, 0) if full else (good[-1].full_id, good[-1].set_id, good[-1].version)
            full_id = set_id if full else good[-1].full_id
            date = date_of(snapshot)
            entry = BackupEntry(set_id, full_id, 4 + set_id, snapshot, prev, full, status, date)
            entries.append(entry)
            word = "full" if full else "inc"
            directory = f"{base}/backup_set_{set_id}_{word}_{date}" if spec.later else f"{base}/backup_set_{full_id}"
            found: dict[str, Any] = {
                "tenant_id": tenant,
                "set_id": set_id,
                "full_id": full_id,
                "type": word,
                "status": _STATUS[status],
                "snapshot": snapshot,
                "data_version": entry.version,
                "directory": directory,
                "pgs": [],
            }
            truth["sets"].append(found)
            if status != SUCCESS:
                continue
            backup = f"{directory}/backup_{set_id}"
            if full:
                for pg in pgs:
                    pg.majors.clear()
            writer = SetWriter(spec, files, set_id, entry.version, directory)
            half = (len(pgs) + 1) // 2
            for task, part in ((10 * set_id, pgs[:half]), (10 * set_id + 1, pgs[half:])):
                found["pgs"] += [writer.pg(pg, task) for pg in part]
                if part:
                    writer.metas(backup, part, task)
            if spec.retries:
                writer.metas(backup, pgs[:1], 10 * set_id + 2)
            inner = [pg.key for pg in pgs if pg.key.table_id & 0xFFFFFFFFFF <= 50_000]
            files[f"{backup}/sys_pg_list"] = infos.pg_list(inner)
            files[f"{backup}/normal_pg_list"] = infos.pg_list([pg.key for pg in pgs if pg.key not in inner])
            files[f"{backup}/tenant_locality_info"] = infos.locality(tenant, name, set_id, snapshot)
            files[f"{backup}/tenant_diagnose_info"] = infos.diagnose(tenant, set_id)
            stats.setdefault(directory, []).append((set_id, snapshot, len(pgs), writer.macro_blocks))
            files[f"{directory}/backup_set_info"] = infos.set_infos(spec, stats[directory])
        files[f"{base}/tenant_data_backup_info"] = infos.backup_infos(spec, entries)
        cluster = entries
    if cluster:
        files[f"{ROOT}/cluster_data_backup_info"] = infos.backup_infos(spec, cluster)


def _rounds(
    spec: TreeSpec, files: dict[str, bytes], truth: dict[str, Any], tenants: list[tuple[int, str]]
) -> list[int]:
    starts = [US + at * DAY for at in range(spec.rounds)]
    pieces = spec.pieces if spec.later else 1
    logs = {tenant: [PgLog(key) for key in pg_keys(spec, tenant)] for tenant, _ in tenants}
    entries: dict[int, list[RoundEntry]] = {tenant: [] for tenant, _ in tenants}
    listed: dict[int, list[PieceEntry]] = {tenant: [] for tenant, _ in tenants}
    for number, start in enumerate(starts, 1):
        live = number == spec.rounds
        for tenant, _ in tenants:
            ends: dict[PgKey, bytes] = {}
            checkpoint = start
            first_piece = len(listed[tenant]) + 1 if spec.later else 0
            for at in range(pieces):
                piece = first_piece + at if spec.later else 0
                begin = start + at * PIECE_US
                date = date_of(begin)
                name = f"{number}_{piece}_{date}" if spec.later else str(number)
                directory = f"{ROOT}/{tenant}/clog/{name}"
                writer = PieceWriter(spec, files, directory)
                closed = not live or at < pieces - 1
                found = []
                for log in logs[tenant]:
                    record = ends.get(log.key)
                    index_files = 1 if record else 0
                    one = writer.pg(log, begin, first=at == 0, closed=closed)
                    writer.key_file(log, record, first_piece=at == 0, max_index_file=index_files)
                    ends[log.key] = one.pop("end")
                    found.append(one)
                checkpoint = min(one["checkpoint_ts"] for one in found)
                truth["rounds"].append(
                    {
                        "tenant_id": tenant,
                        "round": number,
                        "piece": piece,
                        "directory": directory,
                        "status": "doing" if live else "stop",
                        "start_ts": start,
                        "checkpoint_ts": checkpoint,
                        "pgs": found,
                    }
                )
                if spec.later:
                    latest = max(log.submit for log in logs[tenant])
                    entry = PieceEntry(piece, number, date, begin, checkpoint, latest, 2 if closed else 0)
                    listed[tenant].append(entry)
                    files[f"{directory}/single_piece_info"] = infos.single_piece(tenant, entry)
            status = infos.DOING if live else infos.STOP
            last_piece = listed[tenant][-1].number if spec.later else 0
            entries[tenant].append(RoundEntry(number, start, checkpoint, status, last_piece, first_piece))
        mount = f"{number}_{first_piece}_{date_of(start)}" if spec.later else str(number)
        files[f"{ROOT}/1/clog/{mount}/mount_file"] = str(number).encode()
        for server in (1, 2):
            path = f"{ROOT}/clog_info/{server}_10.0.0.{server}_2882"
            files[path] = infos.start_timestamp(number, start)
    for tenant, _ in tenants:
        files[f"{ROOT}/{tenant}/clog/tenant_clog_backup_info"] = infos.rounds(spec, tenant, entries[tenant])
        if spec.later:
            files[f"{ROOT}/{tenant}/clog/backup_piece_info"] = infos.piece_infos(tenant, listed[tenant])
    if starts:
        last = [
            min((entries[tenant][at] for tenant in entries), key=lambda one: one.checkpoint_ts)
            for at in range(len(starts))
        ]
        files[f"{ROOT}/cluster_clog_backup_info"] = infos.rounds(spec, 1, last)
        if spec.later:
            files[f"{ROOT}/cluster_backup_piece_info"] = infos.piece_infos(1, listed[tenants[0][0]])
    return starts
