"""Archive rounds: gaps, takeovers, stores that are not the same any more, and stopping."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from coordinator import (  # noqa: F401 - the fixture
    restored,
    restored_log,
    session_on,
    small_and_fast,
    target_of,
)
from memory_store import PG, MemoryStore

from mover.clock import SystemClock
from mover.errors import Cancelled, IntegrityError, LogGapError, MoverError, PreconditionError, SourceError, StateError
from mover.events import ArchiveProgress, Notice
from mover.recovery.windows import windows
from mover.repository.archive_state import load_record, publish_record
from mover.repository.rounds import RoundReader
from mover.rootservice import archive
from mover.rootservice.archiver import Archiver
from mover.rootservice.round_views import RoundView, archive_view
from mover.rootservice.session import Session

pytestmark = pytest.mark.usefixtures("small_and_fast")


async def catch_up(session: Session) -> RoundView:
    return await archive.run(session, until_caught_up=True, stop=asyncio.Event())


def a_store(groups: int = 40) -> MemoryStore:
    store = MemoryStore(palf_file=16 << 10)
    store.write_log(groups)
    return store


async def test_log_that_was_read_before_a_gap_is_kept_and_the_gap_is_exact(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        await catch_up(session)
        store.write_log(300)
        # The engine recycles a file in the middle while the archiver reads: what the hold could not keep.
        lost = store.end_lsn // store.palf_file - 2
        log = await store.log("x")
        await log.aclose(keep_hold=False)
        original = type(log).read

        async def read(self: object, cursor: object, limit: int) -> object:
            if cursor.lsn >= lost * store.palf_file:  # type: ignore[attr-defined]
                end = (lost + 1) * store.palf_file
                raise LogGapError("log was recycled", from_lsn=cursor.lsn, until_lsn=end)  # type: ignore[attr-defined]
            return await original(self, cursor, limit)  # type: ignore[arg-type]

        type(log).read = read  # type: ignore[assignment, method-assign]
        try:
            with pytest.raises(LogGapError) as gap:
                await catch_up(session)
        finally:
            type(log).read = original  # type: ignore[method-assign]
        assert gap.value.code == -9027 and gap.value.hint
        record = await load_record(session.repository, 1)
        assert record is not None and record.gap is not None and record.holder == ""
        assert record.checkpoint_lsn == record.gap.from_lsn == lost * store.palf_file
        assert record.gap.until_lsn == (lost + 1) * store.palf_file
        assert record.gap.from_scn == record.checkpoint_scn
        assert (await archive_view(session)).rounds[-1].status == "INTERRUPTED"
        data = b""
        async for run in RoundReader(session.repository, 1, PG).log(0, record.checkpoint_lsn):
            data += run.data
        assert data == store.log_until(0, record.checkpoint_lsn)
        with pytest.raises(PreconditionError) as refused:
            await catch_up(session)
        assert refused.value.code == -9029
        await archive.stop(session)
        assert (await archive.start(session)).info.round_id == 2
        reasons = [hole.reason for hole in (await windows(session.repository)).holes]
        assert any("was recycled by the engine before it was archived" in reason for reason in reasons)


async def test_a_store_whose_log_ends_before_the_archive_is_not_taken_for_caught_up(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        await catch_up(session)
    replaced = a_store(10)
    async with session_on(tmp_path, replaced) as session:
        with pytest.raises(SourceError, match="ends at LSN") as refused:
            await catch_up(session)
        assert "replaced or restored" in (refused.value.hint or "")


async def test_another_history_at_the_same_lsn_is_noticed(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        await catch_up(session)
    other = MemoryStore(seed=99, palf_file=16 << 10)
    while other.end_lsn < store.end_lsn + 1000:
        other.write_log()
    async with session_on(tmp_path, other) as session:
        with pytest.raises((AssertionError, MoverError)):
            await catch_up(session)
        record = await load_record(session.repository, 1)
        assert record is not None and record.checkpoint_lsn == store.end_lsn


async def test_a_sleeper_that_wakes_up_cannot_touch_what_its_successor_wrote(tmp_path: Path) -> None:
    """Two catalogs: no lease keeps the old archiver out, so the destination has to."""
    store = a_store()
    async with session_on(tmp_path, store, catalog="one") as old, session_on(tmp_path, store, catalog="two") as new:
        await archive.start(old)
        await catch_up(old)
        async with archive._archive_lease(old) as lease:
            log = await store.log("sleeper")
            current = (await archive_view(old)).rounds[-1].info
            sleeper = await Archiver.resume(old, lease, current, PG, log)
            store.write_log(20)
            await sleeper._turn()
            # It sleeps with a file open; its successor (the record says nobody is at work) goes on.
            record = await load_record(old.repository, 1)
            assert record is not None
            await publish_record(old.repository, record.__class__(**{**_fields(record), "holder": ""}))
            store.write_log(30)
            await catch_up(new)
            before = {info.path: await target_of(new).get(info.path) async for info in target_of(new).list("")}
            store.write_log(5)
            with pytest.raises(StateError, match="another archiver"):
                await sleeper.close()
            with pytest.raises(StateError, match="archived by"):
                await sleeper._publish(None)
            after = {info.path: await target_of(new).get(info.path) async for info in target_of(new).list("")}
            assert after == before
        assert (await catch_up(new)).record is not None
        reader = RoundReader(new.repository, 1, PG)
        assert b"".join([run.data async for run in reader.log(0, store.end_lsn)]) == store.log_until(0, store.end_lsn)


def _fields(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}  # type: ignore[attr-defined]


async def test_an_archiver_that_lost_its_lease_writes_nothing_more(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        async with archive._archive_lease(session) as lease:
            log = await store.log("archive")
            current = (await archive_view(session)).rounds[-1].info
            archiver = await Archiver.resume(session, lease, current, PG, log)
            await archiver._turn()
            store.write_log(10)
            lease._lost = "another coordinator took it"
            calls = target_of(session).calls
            for step in (archiver._turn, archiver.close, archiver._finish_round):
                with pytest.raises(StateError, match="is lost"):
                    await step()
            assert target_of(session).calls == calls
            lease._lost = None
            await log.aclose(keep_hold=True)


async def test_a_living_archiver_with_another_catalog_is_respected_until_it_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store()
    async with session_on(tmp_path, store, lease_ttl=15.0) as session:
        await archive.start(session)
        await catch_up(session)
        record = await load_record(session.repository, 1)
        assert record is not None
        fields = _fields(record) | {"holder": "elsewhere/1/1", "heartbeat_us": session.clock.now_us()}
        await publish_record(session.repository, record.__class__(**fields))  # type: ignore[arg-type]
        with pytest.raises(PreconditionError, match="elsewhere/1/1") as refused:
            await catch_up(session)
        assert refused.value.code == -9036
        fields["heartbeat_us"] = session.clock.now_us() - 16_000_000
        await publish_record(session.repository, record.__class__(**fields))  # type: ignore[arg-type]
        store.write_log(3)
        view = await catch_up(session)
        assert view.record is not None and view.record.epoch > record.epoch


async def test_published_log_that_is_gone_is_archived_again_and_never_claimed_meanwhile(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        await catch_up(session)
        before = await load_record(session.repository, 1)
        assert before is not None
        path = session.repository.layout.archive_data(1, 1, PG, 2)
        target = target_of(session)
        whole = await target.get(path)
        await target.put(path, whole[: len(whole) // 3])
        # Its index record is lost with it, as when a disk loses its newest writes.
        index = session.repository.layout.archive_index(1, 1, PG, 1)
        await target.put(index, (await target.get(index))[:144])
        await catch_up(session)
        events = session.emit.__self__  # type: ignore[attr-defined]
        assert any(isinstance(event, Notice) and "archived again" in event.message for event in events)
        reader = RoundReader(session.repository, 1, PG)
        assert b"".join([run.data async for run in reader.log(0, store.end_lsn)]) == store.log_until(0, store.end_lsn)


async def test_published_log_that_cannot_be_had_again_moves_the_checkpoint_back(tmp_path: Path) -> None:
    store = a_store(200)
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        await catch_up(session)
        path = session.repository.layout.archive_data(1, 1, PG, 2)
        target = target_of(session)
        await target.put(path, (await target.get(path))[:5000])
        index = session.repository.layout.archive_index(1, 1, PG, 1)
        await target.put(index, (await target.get(index))[:144])
        store.recycle(store.end_lsn)
        with pytest.raises(LogGapError):
            await catch_up(session)
        record = await load_record(session.repository, 1)
        assert record is not None and record.gap is not None
        tail = await RoundReader(session.repository, 1, PG).tail()
        assert record.checkpoint_lsn == (tail.cursor.lsn if tail.cursor else 0) == record.gap.from_lsn
        assert record.checkpoint_scn == (tail.cursor.scn if tail.cursor else 0)


async def test_a_stop_ends_a_running_archiver_with_all_log_and_drops_the_hold(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session, session_on(tmp_path, store) as other:
        other.clock = SystemClock()  # its patience is a minute, which the stepping clock makes a moment
        await archive.start(session)
        running = asyncio.create_task(archive.run(session, until_caught_up=False, stop=asyncio.Event()))
        await asyncio.sleep(0.05)
        store.write_log(20)
        async with asyncio.timeout(30):
            # Both sessions are of this process: the lease is what keeps them apart.
            stopping = asyncio.create_task(archive.stop(other))
            view = await running
            await stopping
        assert view.status == "STOP"
        assert view.record is not None and view.record.checkpoint_lsn == store.end_lsn
        assert store.holds == {} and store.holders == set()
        await archive.start(session)
        assert "archive" in store.holds


@pytest.mark.parametrize("call", ["append", "put", "get", "stat"])
async def test_a_destination_that_hangs_does_not_keep_an_archiver_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(archive, "STOP_GRACE_SECONDS", 0.2)
    store = a_store()
    async with session_on(tmp_path, store) as session, session_on(tmp_path, store) as other:
        await archive.start(session)
        hanging = asyncio.Event()

        async def hang(*_arguments: object, **_options: object) -> None:
            hanging.set()
            await asyncio.Event().wait()

        stop, works = asyncio.Event(), asyncio.Event()
        session.emit = lambda event: works.set() if isinstance(event, ArchiveProgress) else None
        running = asyncio.create_task(archive.run(session, until_caught_up=False, stop=stop))
        await asyncio.wait_for(works.wait(), 30)
        store.write_log(200)
        monkeypatch.setattr(target_of(session), call, hang)
        await asyncio.wait_for(hanging.wait(), 30)
        stop.set()
        with pytest.raises(Cancelled) as stopped:
            await asyncio.wait_for(running, 30)
        assert "did not answer" in stopped.value.message and stopped.value.hint
        # Nothing of it is in the way: the next one begins at once and has all of the log.
        assert (await catch_up(other)).record.checkpoint_lsn == store.end_lsn  # type: ignore[union-attr]
        data = b""
        async for run in RoundReader(other.repository, 1, PG).log(0, store.end_lsn):
            data += run.data
        assert data == store.log_until(0, store.end_lsn)


async def test_a_dropped_hold_is_never_that_of_the_next_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop gives the lease back only after the hold is gone."""
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        held: list[bool] = []
        original = store.log

        async def log(holder: str) -> object:
            rows = await session.catalog.rows(archive.archive_round.metadata.tables["mv_lease"], name="archive:1")
            held.append(rows[0]["holder"] != "")
            return await original(holder)

        monkeypatch.setattr(store, "log", log)
        await archive.stop(session)
        assert held == [True]


async def test_restoring_from_a_round_whose_checkpoint_lies_is_refused(tmp_path: Path) -> None:
    from mover.rootservice import backup

    store = MemoryStore()
    store.change(8)
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        await catch_up(session)
        await backup.run(session, incremental=False, plan=False, stop=asyncio.Event())
        store.write_log(30)
        await catch_up(session)
        record = await load_record(session.repository, 1)
        assert record is not None
        lying = _fields(record) | {"checkpoint_scn": record.checkpoint_scn + 10}
        await publish_record(session.repository, record.__class__(**lying))  # type: ignore[arg-type]
        with pytest.raises(IntegrityError, match="its checkpoint says SCN"):
            await restored(session, tmp_path / "into")
        assert not (tmp_path / "into").exists()
        await restored(session, tmp_path / "into", until_scn=record.checkpoint_scn)
        log = restored_log(store, tmp_path / "into", 0)
        assert log[: store.end_lsn] == store.log_until(0, store.end_lsn)
