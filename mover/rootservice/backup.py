"""BACKUP DATABASE and BACKUP INCREMENTAL DATABASE: preconditions, numbering, the task, the archive gate, publication.

Order: the set is announced as DOING before a byte of it is written, its bytes and its manifest become durable, the
archive passes its end, and only then it is SUCCESS. A run that dies, or that the end of the window or the destination
stops, leaves a DOING entry: the next one goes on with it where macro files of it are there, else turns it into FAILED
and clears it away.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from mover.clock import iso_from_us
from mover.errors import (
    OB_BACKUP_CAN_NOT_START,
    Cancelled,
    MoverError,
    PreconditionError,
    StateError,
    TargetLocked,
    UnreachableError,
)
from mover.events import Notice, Phase, Progress
from mover.executor.base import AttemptId, Batch, BatchDone, BatchFailed, ExecutorEvent, TaskProgress
from mover.executor.local import LOCAL_HOST, LocalExecutor
from mover.media.archive_info import ArchiveRound, ArchiveStatus, current_round
from mover.media.backup_info import (
    BackupInfo,
    BackupStatus,
    begin_backup,
    finish_backup,
    resume_backup,
)
from mover.media.set_info import BackupSetInfo, append_set_info, encode_set_infos, set_view
from mover.repository.archive_state import load_record, load_rounds, load_shown_record
from mover.repository.remains import remove_remains
from mover.repository.sets import (
    load_infos,
    load_set_infos,
    publish_infos,
)
from mover.repository.unfinished import clear_for_next_attempt, forget_written
from mover.rootservice import archive, cluster_backups
from mover.rootservice.backup_decision import BackupPlan, decide
from mover.rootservice.backup_task import BackupTask, run_pg_task
from mover.rootservice.catalog import Catalog
from mover.rootservice.cluster_backups import ClusterSets
from mover.rootservice.lease import Lease
from mover.rootservice.same_destination import require_known_rounds, require_mount_file
from mover.rootservice.schedule import Window
from mover.rootservice.session import Session
from mover.rootservice.tenant_files import cluster_version, write_tenant_files
from mover.rootservice.views import SetView, set_view_of
from mover.store.base import StoreIdentity

ARCHIVE_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class BackupPaused:
    """A backup that the end of the window stopped: the next one goes on with it."""

    tenant_id: int
    info: BackupInfo
    until: str
    restorable: bool = False
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {**set_view(self.tenant_id, self.info), "paused": True, "window": self.until}


class _WindowOver(Exception):
    """The window ended before the backup did."""


async def run(
    session: Session, *, incremental: bool | None, plan: bool, stop: asyncio.Event, tenants: Sequence[str] = ()
) -> SetView | BackupPlan | BackupPaused | ClusterSets:
    """Take a backup of the tenant, or go on with one of the same kind that was interrupted.

    Args:
        incremental: store only what changed since the last successful set; a full when there is none. None: of the kind
            of the interrupted one.
        plan: only say what would be done.
        stop: set it to cancel: everything written is removed and Cancelled is raised.
        tenants: of a cluster: only these, by name or id.

    Raises:
        PreconditionError: -9040 when no archive round is DOING, -9036 when another backup runs; there is nothing to go
            on with; it is not the time of the window.
        MountError: -9051 when the destination's directory is not the one it was.
    """
    until_us = _end_of_window(session)
    async with session.lease("backup", floor=await _epoch_floor(session)) as lease:
        round_info = await _require_archive(session)
        if session.maybe_cluster is not None:
            if incremental is None or until_us is not None:
                raise PreconditionError(
                    "backups of a cluster cannot be interrupted and gone on with yet",
                    hint="use `mover backup full` or `incremental`, without --window",
                )
            how = {"incremental": incremental, "plan": plan}
            cluster = session.maybe_cluster
            return await cluster_backups.run(session, cluster, lease, round_info, stop=stop, tenants=tenants, **how)
        decision = await decide(session, incremental, planned=plan)
        repository, info = session.repository, decision.info
        if plan:
            return decision.plan(repository)
        if decision.reason:
            session.emit(Notice("backup", decision.reason))
        identity = await session.store.identity()
        if stop.is_set():
            raise Cancelled("the backup was cancelled before it began")
        lease.check()
        announce = begin_backup if decision.resumed is None else resume_backup
        await publish_infos(repository, announce(await load_infos(repository), info))
        task = BackupTask(
            session,
            lease,
            identity,
            info,
            decision.previous,
            round_info.round_id,
            decision.key,
            decision.resumed,
        )
        try:
            if decision.resumed is not None:
                await clear_for_next_attempt(repository, decision.resumed)
            await _clear_away(session, decision.stale)
            await write_tenant_files(repository, identity, info)
            await task.begin()
            receipt = await _execute(session, task, stop, until_us)
            lease.check()
            restorable = await _wait_for_archive(session, task, receipt, stop)
            lease.check()
        except _WindowOver:
            number, window = info.inc_backup_set_id, session.settings.window
            text = f"the window {window} is over: the next backup goes on with set {number}"
            session.emit(Notice("backup", text))
            with suppress(MoverError):  # the catalog is only an index
                await task.pause(text)
            return BackupPaused(repository.tenant_id, info, session.settings.window or "")
        except BaseException as exc:
            await asyncio.shield(_fail(session, lease, task, info, exc))
            raise
        await _publish(session, lease, info, receipt, identity)
        try:
            await forget_written(repository, info)
            await task.finish(0, "", receipt)
        except UnreachableError as exc:
            # The set is there whatever the catalog says: it is an index, and the next backup corrects the row.
            session.emit(Notice("backup", f"backup set {info.inc_backup_set_id} is complete, but {exc.message}"))
    done = dataclasses.replace(info, status=BackupStatus.SUCCESS)
    return await set_view_of(repository, done, restorable=restorable)


def _end_of_window(session: Session) -> int | None:
    if session.settings.window is None:
        return None
    window, now_us = Window.parse(session.settings.window), session.clock.now_us()
    end_us = window.end_after(now_us)
    if end_us is None:
        raise PreconditionError(
            f"it is {iso_from_us(now_us)}, and backups may run at {window} only",
            hint="wait for the window, or give another one with --window",
        )
    return end_us


async def _epoch_floor(session: Session) -> int:
    """Epochs grow also when the catalog was lost: the archive's round record remembers one."""
    current = current_round(await load_rounds(session.repository))
    record = await load_shown_record(session.repository, current.round_id) if current else None
    return record.epoch if record else 0


async def _clear_away(session: Session, stale: Sequence[BackupInfo]) -> None:
    """Remove what dead backups left. They say FAILED already: whoever wrote them can not finish them any more."""
    for info in stale:
        removed, locked = await remove_remains(session.repository, info)
        if removed:
            text = f"backup set {info.inc_backup_set_id} was never finished: {removed} files of it removed"
            session.emit(Notice("backup", text))
        _tell_locked(session, info, locked)


def _tell_locked(session: Session, info: BackupInfo, locked: TargetLocked | None) -> None:
    if locked is not None:
        text = f"backup set {info.inc_backup_set_id} was never finished, but stays for now: {locked.message}"
        session.emit(Notice("backup", text, "`mover sweep` removes it after that"))


async def _require_archive(session: Session) -> ArchiveRound:
    rounds = await load_rounds(session.repository)
    await require_known_rounds(session, rounds)
    current = current_round(rounds)
    if current is None or current.status != ArchiveStatus.DOING:
        status = "STOP" if current is None else ArchiveStatus(current.status).name
        raise PreconditionError(
            f"backup can not start, because log archive is not doing. log archive status : {status}.",
            code=OB_BACKUP_CAN_NOT_START,
            hint="begin archiving with `mover archivelog start` and keep `mover archivelog run` going",
            tenant_id=session.repository.tenant_id,
        )
    await require_mount_file(session.repository, current)
    return current


async def _execute(session: Session, task: BackupTask, stop: asyncio.Event, until_us: int | None) -> Mapping[str, Any]:
    """Hand the PGs to the executor and follow them until the last one ended. Raises _WindowOver at ``until_us``."""

    async def agent(_batch: Batch, report: Any) -> Mapping[str, Any]:
        return await run_pg_task(task, report)

    attempt = AttemptId(task.info.inc_backup_set_id, 0, task.lease.epoch << 20)
    async with LocalExecutor(agent) as executor:
        await executor.submit(Batch(attempt, LOCAL_HOST, (task.identity.pg,)))
        events = executor.events()
        while True:
            event = await _next_event(events, task, stop, until_us)
            if isinstance(event, str):
                await executor.abort([attempt], grace=30.0)
                if event == "window":
                    raise _WindowOver
                raise Cancelled(
                    f"backup set {task.info.inc_backup_set_id} was cancelled", hint="what it had written was removed"
                )
            match event:
                case TaskProgress(counters=counters):
                    _show(session, counters)
                    await task.note_progress(counters)
                case BatchDone(receipt=receipt):
                    return receipt
                case BatchFailed(error=error):
                    raise error


async def _next_event(
    events: Any, task: BackupTask, stop: asyncio.Event, until_us: int | None
) -> ExecutorEvent | Literal["cancel", "window"]:
    """The next event, or why the backup has to stop."""
    clock = task.session.clock
    coming = asyncio.ensure_future(anext(events))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        while True:
            await asyncio.wait({coming, stopping}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            # Asked also while events come faster than the wait times out.
            if stopping.done() or await task.cancel_requested():
                return "cancel"
            if until_us is not None and clock.now_us() >= until_us:
                return "window"
            if coming.done():
                return coming.result()  # type: ignore[no-any-return]
    finally:
        for waiter in (coming, stopping):
            waiter.cancel()
        await asyncio.gather(coming, stopping, return_exceptions=True)


def _show(session: Session, counters: Mapping[str, int]) -> None:
    session.emit(Progress("backup", session.repository.tenant_id, **counters))


async def _wait_for_archive(
    session: Session, task: BackupTask, receipt: Mapping[str, Any], stop: asyncio.Event
) -> bool:
    """True once the archive's checkpoint has passed the end of the set: only then can it be restored."""
    repository, end_lsn = session.repository, int(receipt["end_lsn"])
    session.emit(Phase("backup", "wait-archive", f"until LSN {end_lsn}"))
    deadline = session.clock.monotonic() + session.settings.archive_wait

    async def asked() -> bool:
        return stop.is_set() or await task.cancel_requested()

    while not await asked():
        current = current_round(await load_rounds(repository))
        record = await load_record(repository, current.round_id) if current else None
        if current is None or record is None or current.status != ArchiveStatus.DOING:
            status = "STOP" if current is None else ArchiveStatus(current.status).name
            raise StateError(
                f"log archive went to {status} while the backup ran: the set cannot be restored without its log",
                hint="begin a new round and take a new backup",
            )
        if current.round_id != task.log_round or record.start_lsn > int(receipt["start_lsn"]):
            raise StateError(
                f"the set needs log from LSN {receipt['start_lsn']} on, which round {current.round_id} does not hold:"
                f" it begins at LSN {record.start_lsn}, and the backup began in round {task.log_round}",
                hint="a backup and its log must lie in one round: take a new backup",
            )
        if record.checkpoint_lsn >= end_lsn:
            return True
        if await archive.catch_up_until(session, task.identity, end_lsn, asked):
            continue
        if session.clock.monotonic() > deadline:
            behind = end_lsn - record.checkpoint_lsn
            text = f"the set is complete, but not restorable yet: the archive is {behind} bytes behind its end"
            session.emit(Notice("backup", text, "see `mover archivelog status`; `mover show windows` tells when it is"))
            return False
        await session.clock.sleep(ARCHIVE_POLL_SECONDS)
    raise Cancelled("the backup was cancelled while it waited for the archive")


async def _publish(
    session: Session, lease: Lease, info: BackupInfo, receipt: Mapping[str, Any], identity: StoreIdentity
) -> None:
    """Statistics first, then SUCCESS: the record that makes the set exist for a restore comes last."""
    repository = session.repository
    session.emit(Phase("backup", "publish", f"set {info.inc_backup_set_id}"))
    stats = BackupSetInfo(
        backup_set_id=info.inc_backup_set_id,
        backup_snapshot_version=info.backup_snapshot_version,
        compatible=info.compatible,
        pg_count=1,
        macro_block_count=int(receipt["macro_block_count"]),
        input_bytes=int(receipt["input_bytes"]),
        output_bytes=int(receipt["output_bytes"]),
        cluster_version=cluster_version(identity.version),
    )
    old = await load_set_infos(repository, info.full_backup_set_id)
    path = repository.layout.backup_set_info(repository.tenant_id, info.full_backup_set_id)
    lease.check()
    await repository.write(path, encode_set_infos(append_set_info(old, stats)))
    await lease.renew()
    done = dataclasses.replace(info, status=BackupStatus.SUCCESS)
    await publish_infos(repository, finish_backup(await load_infos(repository), done))


async def _fail(session: Session, lease: Lease, task: BackupTask, info: BackupInfo, exc: BaseException) -> None:
    """Say FAILED and clear away what can be. Bounded, and silent about a destination that is the reason itself.

    What only the destination or the source's absence stopped is left as it is, DOING: the next backup goes on with it.
    """
    code = exc.code or -1 if isinstance(exc, MoverError) else -1
    if isinstance(exc, UnreachableError):
        await _note_end(task, code, exc)
        return
    try:
        async with asyncio.timeout(30):
            lease.check()
            failed = dataclasses.replace(info, status=BackupStatus.FAILED)
            await publish_infos(session.repository, finish_backup(await load_infos(session.repository), failed))
            _, locked = await remove_remains(session.repository, info)
            _tell_locked(session, info, locked)
    except (MoverError, TimeoutError) as second:
        text = f"backup set {info.inc_backup_set_id} could not be cleared away: {second}"
        session.emit(Notice("backup", text, "the next backup does it"))
    await _note_end(task, code, exc)


async def _note_end(task: BackupTask, code: int, exc: BaseException) -> None:
    try:
        await task.finish(code, str(exc))
    except MoverError:
        pass  # the catalog is only an index; the next run sets it right


async def cancel(catalog: Catalog, tenant_id: int) -> dict[str, Any]:
    """Ask the running backup to stop. Needs only the catalog, so it works when the destination is dead.

    Raises PreconditionError when no backup runs.
    """
    return await BackupTask.request_cancel(catalog, tenant_id)
