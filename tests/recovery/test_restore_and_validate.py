"""Whatever is damaged, missing, full or called off: restore and validate say so, and leave nothing behind."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from coordinator import restored, restored_blocks, restored_log, session_on, small_and_fast, target_of  # noqa: F401
from faulty_target import FaultyTarget
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_store import BLOCKS, PG, MemoryStore

from mover.errors import (
    Cancelled,
    IntegrityError,
    LogGapError,
    MoverError,
    PreconditionError,
    TargetError,
    UnreachableError,
)
from mover.kernel import palf_walk
from mover.media.layout import FileKind, parse_path
from mover.recovery.restore import RestoreRequest, cut_run, restore
from mover.recovery.validate import ValidateRequest, validate
from mover.recovery.windows import windows
from mover.repository.rounds import RoundReader
from mover.rootservice import archive, backup
from mover.rootservice.session import Session

pytestmark = pytest.mark.usefixtures("small_and_fast")


@asynccontextmanager
async def a_tree(root: Path) -> AsyncIterator[tuple[Session, MemoryStore]]:
    """Two sets, a round with several files."""
    store = MemoryStore(seed=11, palf_file=16 << 10)
    for _ in range(8):
        store.change()
    async with session_on(root, store) as session:
        await archive.start(session)
        for number in range(2):
            await archive.run(session, until_caught_up=True, stop=asyncio.Event())
            await backup.run(session, incremental=number > 0, plan=False, stop=asyncio.Event())
            store.change(4)
        store.write_log(80)
        await archive.run(session, until_caught_up=True, stop=asyncio.Event())
        yield session, store


@pytest.fixture(autouse=True)
def small_log_files(monkeypatch: pytest.MonkeyPatch, small_and_fast: None) -> None:  # noqa: F811
    monkeypatch.setattr("mover.store.seekdb.rebuild.PALF_FILE_BYTES", 16 << 10)
    monkeypatch.setattr("mover.store.seekdb.rebuild._PALF_FILE_SIZE", (16 << 10) + 4096)


async def every_file(session: Session) -> list[str]:
    return [info.path async for info in target_of(session).list("")]


async def check(session: Session, **request: Any) -> list[str]:
    report = await validate(session.repository, ValidateRequest(**request))
    return [violation.path for violation in report.violations]


async def test_a_flipped_bit_in_any_file_is_found_and_named(tmp_path: Path) -> None:
    async with a_tree(tmp_path) as (session, _):
        assert await check(session) == []
        target, rng = target_of(session), random.Random(1)
        for path in await every_file(session):
            whole = await target.get(path)
            for _ in range(3):
                bit = rng.randrange(len(whole) * 8)
                damaged = bytearray(whole)
                damaged[bit // 8] ^= 1 << bit % 8
                await target.put(path, bytes(damaged))
                assert path in await check(session), f"{path}, bit {bit}"
            await target.put(path, whole)
        assert await check(session) == []


async def test_a_file_that_is_gone_is_found(tmp_path: Path) -> None:
    # Lists and records that are not there at all are those of a tree that never had them.
    silent = {FileKind.CLUSTER_DATA_BACKUP_INFO, FileKind.CLUSTER_CLOG_BACKUP_INFO, FileKind.TENANT_INFO}
    silent |= {FileKind.TENANT_NAME_INFO, FileKind.CLOG_INFO, FileKind.MOUNT_FILE, FileKind.BACKUP_SET_INFO}
    silent |= {FileKind.TENANT_DATA_BACKUP_INFO, FileKind.TENANT_CLOG_BACKUP_INFO, FileKind.ROUND_RECORD}
    silent |= {FileKind.ARCHIVE_KEY, FileKind.ARCHIVE_INDEX}
    async with a_tree(tmp_path) as (session, _):
        target = target_of(session)
        for path in await every_file(session):
            parsed = parse_path(path)
            assert parsed is not None
            if parsed.kind in silent:
                continue
            whole = await target.get(path)
            await target.delete(path)
            assert any(path in found for found in await check(session)), path
            await target.put(path, whole)
        for path in await every_file(session):
            if f"/clog/1/data/{PG.table_id}/" in path or f"/clog/1/index/{PG.table_id}/" in path:
                await target.delete(path)
        assert any(path.endswith("/clog/1/mover_round") or "/clog/1/" in path for path in await check(session))


async def test_an_unreachable_destination_is_not_damage_and_not_a_group_of_errors(tmp_path: Path) -> None:
    async with a_tree(tmp_path) as (session, _):
        original = FaultyTarget.get

        async def get(self: FaultyTarget, path: str, start: int = 0, length: int | None = None) -> bytes:
            if "tenant_name_info" in path:
                raise UnreachableError("nobody answers")
            return await original(self, path, start, length)

        FaultyTarget.get = get  # type: ignore[method-assign]
        try:
            with pytest.raises(UnreachableError, match="nobody answers"):
                await check(session)
        finally:
            FaultyTarget.get = original  # type: ignore[method-assign]


async def test_any_scn_gives_exactly_the_log_up_to_it(tmp_path: Path) -> None:
    async with a_tree(tmp_path) as (session, store):
        assert len(await RoundReader(session.repository, 1, PG).data_files()) > 2
        entries = [scn for _, scn in store.group_ends]
        preview = await restored(session, tmp_path / "p", preview=True)
        low, high = preview.point.set.end_scn, preview.point.until_scn
        rng = random.Random(4)
        moments = {low, high, *(rng.randint(low, high) for _ in range(12))}
        moments |= {scn + step for scn in rng.sample([s for s in entries if low < s < high], 4) for step in (-1, 0)}
        for number, moment in enumerate(sorted(moments)):
            into = tmp_path / f"into{number}"
            report = await restored(session, into, until_scn=moment)
            log = restored_log(store, into, report.point.set.start_lsn)
            walk = palf_walk(log, report.point.set.start_lsn)
            wanted = max(scn for scn in _entry_scns(store) if scn <= moment)
            assert walk.max_scn == wanted == report.log_end_scn
        for outside in (low - 10**12, high + 1):
            with pytest.raises(PreconditionError) as refused:
                await restored(session, tmp_path / "no", until_scn=outside)
            assert str(high) in (refused.value.hint or "")
            assert not (tmp_path / "no").exists()


def _entry_scns(store: MemoryStore) -> list[int]:
    from memory_store import FIRST_SCN, STEP

    return list(range(FIRST_SCN + STEP, store.scn + 1, STEP))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_cut_run_keeps_exactly_the_entries_up_to_the_moment(seed: int, groups: int) -> None:
    store = MemoryStore(seed=seed)
    store.write_log(groups, entries=3)
    data = store.log_until(0, store.end_lsn)
    from mover.repository.log_file import LogRun
    from mover.store.base import LogCursor

    walk = palf_walk(data, 0)
    run = LogRun(0, walk.end_lsn, data, None, walk.min_scn, walk.max_scn, LogCursor(walk.end_lsn))
    for scn in [walk.min_scn - 1, *_entry_scns(store), walk.max_scn + 5]:
        for moment in (scn, scn + 1):
            kept, done, last = cut_run(run, moment, (1 << 64) - 1)
            found = palf_walk(kept, 0, accum=(1 << 64) - 1)
            assert found.end == len(kept)
            assert found.max_scn == last == max([s for s in _entry_scns(store) if s <= moment], default=0)
            assert done == (moment < walk.max_scn)


async def test_a_target_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    async with a_tree(tmp_path) as (session, _):
        into = tmp_path / "mine"
        into.mkdir()
        (into / "file").write_text("precious")
        with pytest.raises(PreconditionError, match="not empty") as refused:
            await restored(session, into)
        assert refused.value.exit_code == 4
        assert (into / "file").read_text() == "precious" and len(list(into.iterdir())) == 1


@pytest.mark.parametrize("existed", [False, True])
async def test_a_full_disk_is_a_clear_error_and_leaves_the_target_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool
) -> None:
    async with a_tree(tmp_path) as (session, _):
        into = tmp_path / "into"
        if existed:
            into.mkdir()
        real = os.pwrite
        left = [20]

        def pwrite(fd: int, data: Any, offset: int) -> int:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(fd, data, offset)

        monkeypatch.setattr("os.pwrite", pwrite)
        with pytest.raises(TargetError, match="no space left") as full:
            await restored(session, into)
        monkeypatch.undo()
        assert "free space" in (full.value.hint or "")
        assert (list(into.iterdir()) == []) if existed else not into.exists()


@pytest.mark.parametrize("call", ["write_block", "append_log", "write_file", "finish"])
async def test_called_off_at_any_step_nothing_is_written_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The thread that writes cannot be cancelled: the restore waits for it before it takes its files away."""
    import threading

    from mover.store.seekdb.rebuild import StoreBuilder

    async with a_tree(tmp_path) as (session, _):
        into, stop = tmp_path / "into", asyncio.Event()
        loop, entered = asyncio.get_running_loop(), threading.Event()
        original = getattr(StoreBuilder, call)
        after: list[bool] = []

        def slow(self: StoreBuilder, *args: Any) -> Any:
            if not entered.is_set():
                entered.set()
                loop.call_soon_threadsafe(stop.set)
                threading.Event().wait(0.05)
                after.append((into / "store.partial").exists() and self._blocks is not None)
            return original(self, *args)

        monkeypatch.setattr(StoreBuilder, call, slow)
        with pytest.raises(Cancelled):
            await restore(session.repository, RestoreRequest(target=into), stop=stop)
        assert after == [True]
        assert not (into / "store.partial").exists()
        if call != "finish":
            assert not into.exists()


async def test_damage_met_by_a_restore_is_named_and_the_target_stays_empty(tmp_path: Path) -> None:
    async with a_tree(tmp_path) as (session, _):
        target, rng = target_of(session), random.Random(3)
        preview = await restored(session, tmp_path / "p", preview=True)
        assert preview.point.set.set_id == 2
        needed = [path for path in await every_file(session) if "/backup_2/" in path or "macro_block" in path]
        needed += [path for path in await every_file(session) if f"/clog/1/data/{PG.table_id}" in path][2:]
        for path in needed:
            if path.endswith("macro_block_index_1"):
                continue  # of the other set
            whole = await target.get(path)
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] ^= 0x10
            await target.put(path, bytes(damaged))
            with pytest.raises((IntegrityError, LogGapError)) as damage:
                await restored(session, tmp_path / "into")
            assert path in str(damage.value), f"{path}: {damage.value}"
            assert not (tmp_path / "into").exists()
            await target.put(path, whole)
        await restored(session, tmp_path / "into")
        assert len(restored_blocks(tmp_path / "into", BLOCKS)) > 5


async def test_only_what_a_mover_error_can_be_comes_out_of_hostile_lists(tmp_path: Path) -> None:
    async with a_tree(tmp_path) as (session, _):
        target, rng = target_of(session), random.Random(8)
        for path in await every_file(session):
            whole = await target.get(path)
            for damaged in (b"", whole[:7], whole[: len(whole) // 2], rng.randbytes(200), whole + b"\0"):
                await target.put(path, damaged)
                try:
                    await restored(session, tmp_path / "p", preview=True)
                except MoverError:
                    pass
                # A few bytes behind the last whole record are what a writer that died leaves.
                torn = damaged[:-1] == whole and ("/data/" in path or "/index/" in path) and "/clog/" in path
                if damaged not in (b"", whole) and not torn:
                    assert path in await check(session), f"{path} with {len(damaged)} of {len(whole)} bytes"
            await target.put(path, whole)


async def test_a_round_that_lost_movers_record_restores_from_what_its_log_says(tmp_path: Path) -> None:
    async with a_tree(tmp_path) as (session, _store):
        before = (await windows(session.repository)).windows
        record = session.repository.layout.round_record(1, 1)
        await target_of(session).delete(record)
        assert [(w.from_scn, w.until_scn, w.sets) for w in (await windows(session.repository)).windows] == [
            (w.from_scn, w.until_scn, w.sets) for w in before
        ]
        report = await restored(session, tmp_path / "into")
        assert report.log_end_scn == before[-1].until_scn
        assert record in await check(session)
