"""Data backups of synthetic clusters: every block of every PG, as the ledger has it, in the tree that 3.1.0 writes."""

import asyncio
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from coordinator import small_and_fast  # noqa: F401 - the fixture
from sim_archive import Archive, key_of

from mover.errors import Cancelled, IntegrityError, PreconditionError
from mover.events import Progress
from mover.media.backup_info import BackupStatus
from mover.media.frames import FrameReader, iter_frames, read_frame
from mover.media.header import Compressor, DataType
from mover.media.layout import Layout
from mover.media.log_entry import iter_log_entries
from mover.media.macro import iter_macro_index, parse_macro
from mover.media.pg_meta import iter_pg_metas
from mover.recovery.foreign_restore import ForeignRestoreRequest, foreign_tenants, restore_foreign
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.sets import load_cluster_infos, load_infos
from mover.repository.tenants import of_tenant
from mover.rootservice import archive, backup, job_views
from mover.rootservice.session import open_session
from mover.store.observer.capture import ObserverCapture
from mover.store.sim.cluster import grow

LAYOUT = Layout("synthetic", 1)
SMALL = {"observers": 3, "tenants": 2, "pgs": 12, "blocks": 3, "block_size": 32 << 10, "log_size": 128 << 10}


pytestmark = pytest.mark.usefixtures("small_and_fast")


@pytest.fixture
def made(tmp_path: Path) -> Archive:
    made = Archive(tmp_path, seed=5, clog_fill=64 << 10, **SMALL)
    made.run(archive.start)
    made.catch_up()
    return made


def back_up(made: Archive, *, incremental: bool = False, **more: Any) -> Any:
    return made.run(
        lambda session: backup.run(session, incremental=incremental, plan=False, stop=asyncio.Event(), **more)
    )


def blocks_of(made: Archive, pg: dict[str, Any], full: int, number: int, task: int | None) -> list[tuple[Any, bytes]]:
    """(head and entry of the index, block) of one PG's majors or minors, read as a restore reads them."""
    tenant, key = pg["tenant_id"], key_of(pg)
    index = made.dest / LAYOUT.macro_block_index(tenant, full, key, number, minor_task=task)
    if not index.exists():
        return []
    found = []
    for head, entry in iter_macro_index(iter_frames(index.read_bytes(), data_type=DataType.MACRO_DATA_INDEX)):
        if entry is None:
            continue
        path = made.dest / LAYOUT.macro_block(tenant, full, key, entry.backup_set_id, entry.sub_task_id, task)
        with path.open("rb") as file:
            file.seek(entry.offset)
            frame = read_frame(file.read(entry.data_length), offset=entry.offset, data_type=DataType.MACRO_DATA)
        found.append(((head, entry), bytes(parse_macro(frame.data()).block)))
    return found


def check(made: Archive, full: int, number: int) -> dict[str, int]:
    """The set holds exactly what the ledger says the PGs' replicas have; how many blocks, and how many are reused."""
    counts = {"blocks": 0, "reused": 0}
    for pg in made.ledger()["pgs"]:
        tenant = pg["tenant_id"]
        facts = {
            (row["table_id"], row["partition_id"]): row
            for row in iter_pg_metas((made.dest / LAYOUT.meta_file(tenant, full, number, 1)).read_bytes())
        }[pg["table_id"], pg["partition_id"]]
        server = int(facts["server"].split(":")[0].rpartition(".")[2])
        (replica,) = (r for r in pg["replicas"] if r["server"] == server)
        assert facts["data_version"] == min(s["version"] for s in replica["sstables"] if s["table_type"] == 1)
        for task in (None, facts["minor_task"] or 1):
            expected = {
                (s["index_id"], s["partition_id"], s["base_version"], s["snapshot_version"], b[1], b[2]): b[7]
                for s in replica["sstables"]
                if (s["table_type"] == 1) == (task is None)
                for b in s["blocks"]
            }
            found = {}
            for (head, entry), block in blocks_of(made, pg, full, number, task):
                key = head.table_key
                span = key.trans_version_range
                name = (key.table_id, key.pkey.partition_id, span.base_version, span.snapshot_version)
                found[(*name, entry.data_version, entry.data_seq)] = hashlib.sha256(block).hexdigest()
                counts["blocks"] += 1
                counts["reused"] += entry.backup_set_id != number
            assert found == expected
    return counts


def kept(made: Archive, before: int, now: int) -> int:
    """Blocks of majors of the PGs that two sets took from the same replica: those of another one may differ."""
    count = 0
    for tenant in (1001, 1002):
        first, second = (
            {
                (row["table_id"], row["partition_id"]): row
                for row in iter_pg_metas((made.dest / LAYOUT.meta_file(tenant, 1, number, 1)).read_bytes())
            }
            for number in (before, now)
        )
        for pg, row in second.items():
            if first[pg]["server"] == row["server"]:
                count += sum(len(table["blocks"]) for table in row["majors"])
    return count


def clean(made: Archive) -> None:
    report = made.run(lambda session: validate(session.repository, ValidateRequest()), need_source=False)
    assert (report.violations, report.notes) == ([], [])


def test_a_full_and_incrementals(made):
    sets = back_up(made)
    assert [(found.tenant.tenant_id, found.info.status) for found in sets.sets] == [(1001, 0), (1002, 0)]
    first = check(made, 1, 1)
    assert first == {"blocks": sum(found.counters.blocks for found in sets.sets), "reused": 0}
    clean(made)
    # Without a merge the majors are those of the full.
    grow(made.cluster, major=False)
    made.catch_up()
    second = back_up(made, incremental=True)
    found = check(made, 1, 2)
    majors = kept(made, 1, 2)
    # Of another replica only blocks with the same checksum are.
    assert found["reused"] == sum(s.counters.reused for s in second.sets) >= majors > 0
    # After one, those that the merge took over.
    grow(made.cluster, major=True)
    made.catch_up()
    back_up(made, incremental=True)
    third = check(made, 1, 3)
    assert 0 < third["reused"] < third["blocks"]
    clean(made)
    lists = made.run(lists_of, need_source=False)
    assert all([i.inc_backup_set_id for i in infos] == [1, 2, 3] for infos in lists.values())
    assert {i.status for infos in lists.values() for i in infos} == {BackupStatus.SUCCESS}
    snapshots = [[i.backup_snapshot_version for i in infos] for infos in lists.values()]
    assert snapshots[0] == snapshots[1] == snapshots[2] == sorted(snapshots[0])


async def lists_of(session: Any) -> dict[int, Any]:
    found = {tenant: await load_infos(of_tenant(session.repository, tenant)) for tenant in (1001, 1002)}
    return found | {1: await load_cluster_infos(session.repository)}


def test_blocks_that_the_older_set_lost_are_copied_again(made):
    first = back_up(made)
    pg = made.ledger()["pgs"][0]
    (made.dest / LAYOUT.macro_block(pg["tenant_id"], 1, key_of(pg), 1, 0)).unlink()
    second = back_up(made, incremental=True)
    assert check(made, 1, 2)["blocks"] == sum(found.counters.blocks for found in first.sets)
    copied = sum(found.counters.blocks - found.counters.reused for found in second.sets)
    minors = sum(
        len(s["blocks"]) for p in made.ledger()["pgs"] for s in p["replicas"][0]["sstables"] if s["table_type"] != 1
    )
    assert copied > minors


def test_compression_and_one_tenant(made):
    made.settings = dataclasses.replace(made.settings, compression="zstd:1")
    assert [found.tenant.name for found in back_up(made, tenants=["1002"]).sets] == [
        pg["name"] for pg in made.ledger()["tenants"] if pg["tenant_id"] == 1002
    ]
    kinds = set()
    for path in made.dest.rglob("macro_block_1.0"):
        reader = FrameReader(DataType.MACRO_DATA)
        kinds |= {frame.header.compressor for frame in reader.feed(path.read_bytes())}
    assert Compressor.ZSTD_1_3_8 in kinds
    clean(made)
    with pytest.raises(PreconditionError, match="no tenant 'nobody'"):
        back_up(made, tenants=["nobody"])


def test_a_plan_writes_nothing(made):
    before = sorted(made.dest.rglob("*"))
    made.run(lambda s: backup.run(s, incremental=True, plan=True, stop=asyncio.Event()))
    assert sorted(made.dest.rglob("*")) == before


def test_a_damaged_block_fails_the_backup_and_leaves_nothing(made):
    pg = made.ledger()["pgs"][0]
    for replica in pg["replicas"]:
        block = next(s for s in replica["sstables"] if s["table_type"] == 1)["blocks"][1]
        with (made.cluster / f"observer_{replica['server']}/store/sstable/block_file").open("r+b") as file:
            file.seek(block[0] * (2 << 20) + 5000)
            file.write(b"damage")
    with pytest.raises(IntegrityError, match=r"block \d+ of .* is damaged: payload checksum"):
        back_up(made)
    assert not list(made.dest.rglob("macro_block_*"))
    lists = made.run(lists_of, need_source=False)
    assert [infos[-1].status for infos in lists.values()] == [BackupStatus.FAILED] * 3
    clean(made)


def test_a_merge_while_majors_are_copied(made, monkeypatch):
    """What was listed is not there any more: the backup says so, and the next one is good."""
    read, grown = ObserverCapture.read, []

    async def merging(self, table, numbers):
        if table.is_major and not grown:
            grown.append(grow(made.cluster, major=True))
            grown.append(grow(made.cluster, major=True))
        return await read(self, table, numbers)

    monkeypatch.setattr(ObserverCapture, "read", merging)
    with pytest.raises(Exception, match="merge") as caught:
        back_up(made)
    assert caught.type.__name__ == "SourceError"
    made.catch_up()
    back_up(made)
    check(made, 2, 2)
    clean(made)


def test_minors_that_are_merged_while_they_are_copied_are_copied_again(made, monkeypatch):
    read, grown = ObserverCapture.read, []

    async def merging(self, table, numbers):
        found = await read(self, table, numbers)
        if not table.is_major and not grown:
            grown.append(grow(made.cluster, major=False))
        return found

    monkeypatch.setattr(ObserverCapture, "read", merging)
    sets = back_up(made)
    made.catch_up()
    check(made, 1, 1)
    assert all(found.info.backup_snapshot_version > 0 for found in sets.sets)
    clean(made)


def test_cancelling(made):
    stop, seen = asyncio.Event(), []

    def heard(event: object) -> None:
        seen.append(event)
        if isinstance(event, Progress):
            stop.set()

    async def whole() -> None:
        async with open_session(made.settings, need_source=True, emit=heard) as session:
            await backup.run(session, incremental=False, plan=False, stop=stop)

    with pytest.raises(Cancelled):
        asyncio.run(whole())
    assert not list(made.dest.rglob("macro_block_*"))


def test_the_catalog_knows_the_backup_and_can_cancel_it(made, monkeypatch):
    back_up(made)
    rows = made.run(job_views.jobs).rows
    assert [(row["tenant_id"], row["status"]) for row in rows] == [
        (1, "COMPLETED"),
        (1001, "COMPLETED"),
        (1002, "COMPLETED"),
    ]
    assert rows[0]["finish_macro_block_count"] == sum(row["finish_macro_block_count"] for row in rows[1:]) > 0
    read = ObserverCapture.read

    async def slowly(self, table, numbers):
        await asyncio.sleep(0.3)
        return await read(self, table, numbers)

    monkeypatch.setattr(ObserverCapture, "read", slowly)
    monkeypatch.setattr("mover.rootservice.cluster_task.LOOK_SECONDS", 0.02)

    async def body(session: Any) -> None:
        running = asyncio.ensure_future(backup.run(session, incremental=False, plan=False, stop=asyncio.Event()))
        while not (await job_views.progress(session)).rows:
            await asyncio.sleep(0.01)
        await backup.cancel(session.catalog, 1)
        with pytest.raises(Cancelled):
            await running
        assert (await job_views.progress(session)).rows == ()

    made.run(body)
    assert not list(made.dest.rglob("macro_block_2.*"))


def test_a_pg_whose_log_begins_too_late(made):
    """Its sstables end before the archive begins: nothing could bring them up to date."""
    pg = made.ledger()["pgs"][0]
    (made.dest / LAYOUT.archive_key(pg["tenant_id"], 1, key_of(pg))).unlink()
    with pytest.raises(PreconditionError, match="nothing of it is archived yet") as caught:
        back_up(made)
    assert caught.value.code == -9040


def test_what_is_restored_is_the_ledger(made, tmp_path):
    """Full and incremental, then restored to a directory per PG: blocks and log byte for byte."""
    back_up(made)
    grow(made.cluster, major=False)
    made.catch_up()
    back_up(made, incremental=True)
    before = made.ledger()
    for major in (True, False, False):
        # Until the archive has passed the snapshot: a PG may have little log.
        grow(made.cluster, major=major)
        made.catch_up()
    logs = {(pg["table_id"], pg["partition_id"]): {row[0]: row for row in pg["logs"]} for pg in made.ledger()["pgs"]}
    for tenant in (1001, 1002):
        into = tmp_path / f"restored{tenant}"

        async def restore(session: Any, tenant: int = tenant, into: Path = into) -> Any:
            target = session.repository.target
            request = ForeignRestoreRequest(into, tenant_id=tenant)
            return await restore_foreign(target, await foreign_tenants(target), request)

        report = made.run(restore, need_source=False)
        pgs = [pg for pg in before["pgs"] if pg["tenant_id"] == tenant]
        assert (report.set_id, report.pgs) == (2, len(pgs))
        for pg in pgs:
            directory = into / str(tenant) / f"{pg['table_id']}_{key_of(pg).partition_id}"
            inventory = json.loads((directory / "inventory.json").read_text())
            known = [
                {(b[1], b[2], b[7]) for s in replica["sstables"] for b in s["blocks"]} for replica in pg["replicas"]
            ]
            found = set()
            for block in inventory["blocks"]:
                data = (directory / block["file"]).read_bytes()[block["offset"] :][: block["length"]]
                found.add((block["data_version"], block["data_seq"], hashlib.sha256(data).hexdigest()))
            assert found in known
            rows, position = logs[pg["table_id"], pg["partition_id"]], None
            entries = b"".join(path.read_bytes() for path in sorted(directory.glob("log.*"), key=number_of))
            for entry in iter_log_entries(entries):
                assert position in (None, entry.header.log_id - 1)
                position = entry.header.log_id
                raw = bytearray(entry.header.pack() + entry.body)
                raw[73] &= 0x7F
                assert position not in rows or hashlib.sha256(raw).hexdigest() == rows[position][3]
            assert position is not None


def number_of(path: Path) -> int:
    return int(path.suffix[1:])
