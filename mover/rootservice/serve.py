"""The resident coordinator: archives without a break and takes backups by a schedule.

Several may serve the same destination with one catalog: who has the lease ``serve`` works, the others stand by and look
every third of its life. Whatever goes wrong with a source, a destination or a backup is said and tried again; only what
no waiting mends, such as a bad setting, ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from mover.clock import Clock, SystemClock, iso_from_us
from mover.config import Settings
from mover.errors import OB_BACKUP_IN_PROGRESS, Cancelled, ConfigError, MoverError, PreconditionError
from mover.events import Emit, Notice, Phase, Scheduled
from mover.repository.archive_state import load_rounds
from mover.rootservice import archive, backup
from mover.rootservice.lease import Lease
from mover.rootservice.schedule import Due, Schedule
from mover.rootservice.session import Session, open_session

LOOK_SECONDS = 1.0  # how often the lease, and the clock on the wall, are looked at
PATIENCE_SECONDS = (1.0, 60.0)  # between two attempts at what failed: the first wait, and the longest

OpenSession = Callable[..., AbstractAsyncContextManager[Session]]


async def serve(
    settings: Settings,
    schedule: Schedule,
    *,
    emit: Emit,
    stop: asyncio.Event,
    clock: Clock | None = None,
    opened: OpenSession = open_session,
) -> None:
    """Serve until ``stop`` is set; then what was read of the log is archived and a running backup cancelled cleanly.

    Args:
        opened: how a session is opened.

    Raises ConfigError.
    """
    clock = clock or SystemClock()
    said = _Said(emit)
    patience = _Patience(clock, stop)
    while not stop.is_set():
        try:
            async with (
                opened(settings, need_source=True, archiving=True, emit=emit, clock=clock) as session,
                session.lease("serve") as lease,
            ):
                patience.reset()
                said.again()
                emit(Phase("serve", "lead", f"epoch {lease.epoch}"))
                await _lead(settings, schedule, session, lease, stop, opened)
        except ConfigError:
            raise
        except PreconditionError as exc:
            if exc.code != OB_BACKUP_IN_PROGRESS:
                raise
            said.notice(f"standing by: {exc.message}")
            await _pause(clock, stop, settings.lease_ttl / 3)
        except MoverError as exc:
            said.notice(exc.message, exc.hint)
            await patience.wait()


async def _lead(
    settings: Settings, schedule: Schedule, session: Session, lease: Lease, stop: asyncio.Event, opened: OpenSession
) -> None:
    """Do the work of the one that has the lease, until it is lost (StateError) or ``stop``."""
    work = [
        asyncio.create_task(_keep_archiving(session, stop)),
        asyncio.create_task(_keep_schedule(settings, schedule, session, stop, opened)),
        asyncio.create_task(_watch(lease, session.clock, stop)),
    ]
    try:
        await asyncio.gather(*work)
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def _watch(lease: Lease, clock: Clock, stop: asyncio.Event) -> None:
    while not stop.is_set():
        lease.check()
        await _pause(clock, stop, LOOK_SECONDS)


async def _keep_archiving(session: Session, stop: asyncio.Event) -> None:
    """Archive the current round, again after whatever ended it; begin the very first one."""
    said = _Said(session.emit)
    patience = _Patience(session.clock, stop)
    while not stop.is_set():
        try:
            if not await load_rounds(session.repository):
                await archive.start(session)
            # Only the first: a round that a person stopped stays stopped, and what is missing after an interruption
            # is for a person to see.
            await archive.run(session, until_caught_up=False, stop=stop)
            patience.reset()
            said.again()
        except ConfigError:
            raise
        except Cancelled:
            return
        except MoverError as exc:
            said.notice(f"archiving: {exc.message}", exc.hint)
        await patience.wait()


async def _keep_schedule(
    settings: Settings, schedule: Schedule, session: Session, stop: asyncio.Event, opened: OpenSession
) -> None:
    clock, emit = session.clock, session.emit
    last_us = clock.now_us()
    while (due := schedule.next_after(last_us)) is not None:
        emit(Scheduled("serve", due.work, due.at_us))
        # In short steps, by the clock on the wall: it can be set, and the machine can sleep.
        while clock.now_us() < due.at_us and not stop.is_set():
            await _pause(clock, stop, min(LOOK_SECONDS, (due.at_us - clock.now_us()) / 1e6))
        if stop.is_set():
            return
        await _back_up(settings, due, emit, clock, stop, opened)
        last_us = max(due.at_us, clock.now_us())
        for missed in schedule.between(due.at_us, last_us):
            text = f"the {missed.work} backup of {iso_from_us(missed.at_us)} was left out: another one was running"
            emit(Notice("serve", text))
    await stop.wait()


async def _back_up(
    settings: Settings, due: Due, emit: Emit, clock: Clock, stop: asyncio.Event, opened: OpenSession
) -> None:
    try:
        async with opened(settings, need_source=True, emit=emit, clock=clock) as session:
            view: Any = await backup.run(session, incremental=due.work == "incremental", plan=False, stop=stop)
            emit(Notice("serve", f"{due.work} backup: set {view.info.inc_backup_set_id} is complete"))
    except ConfigError:
        raise
    except MoverError as exc:
        emit(Notice("serve", f"{due.work} backup failed: {exc.message}", exc.hint))


async def _pause(clock: Clock, stop: asyncio.Event, seconds: float) -> None:
    """Wait, at most until ``stop``."""
    stopping = asyncio.create_task(stop.wait())
    sleeping = asyncio.create_task(clock.sleep(max(0.0, seconds)))
    try:
        await asyncio.wait({stopping, sleeping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stopping, sleeping):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class _Patience:
    """Longer and longer waits between attempts."""

    def __init__(self, clock: Clock, stop: asyncio.Event) -> None:
        self._clock, self._stop = clock, stop
        self.reset()

    def reset(self) -> None:
        self._next = PATIENCE_SECONDS[0]

    async def wait(self) -> None:
        await _pause(self._clock, self._stop, self._next)
        self._next = min(2 * self._next, PATIENCE_SECONDS[1])


class _Said:
    """Notices, each of which is made once until something else happened: what is tried again fails alike."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._last = ""

    def again(self) -> None:
        self._last = ""

    def notice(self, message: str, hint: str | None = None) -> None:
        if message != self._last:
            self._last = message
            self._emit(Notice("serve", message, hint))
