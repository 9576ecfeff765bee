"""The resident coordinator on a clock that is turned: what is due is done once, what fails is tried again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from coordinator import session_on
from memory_store import MemoryStore
from polling import until

from mover.config import Settings
from mover.errors import ConfigError, UnreachableError
from mover.events import Event, Notice, Phase, Scheduled
from mover.media.backup_info import BackupStatus, BackupType
from mover.repository.archive_state import load_rounds
from mover.repository.sets import load_infos
from mover.rootservice import archive
from mover.rootservice.schedule import Schedule
from mover.rootservice.serve import serve
from mover.rootservice.session import Session

LEASE_TTL = 36_000.0  # ten seconds of the clock below


class FastClock:
    """An hour passes in a second."""

    SPEED = 3600

    def __init__(self) -> None:
        self.began = time.monotonic()

    def now_us(self) -> int:
        return 1_800_000_000_000_000 + int(self.monotonic() * 1e6)

    def monotonic(self) -> float:
        return (time.monotonic() - self.began) * self.SPEED

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.SPEED)


@dataclass
class Site:
    root: Path
    store: MemoryStore
    clock: FastClock = field(default_factory=FastClock)
    events: list[Event] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    fails: list[Exception] = field(default_factory=list)

    @asynccontextmanager
    async def opened(self, _settings: Settings, **_options: Any) -> AsyncIterator[Session]:
        if self.fails:
            raise self.fails.pop(0)
        async with session_on(self.root, self.store, lease_ttl=LEASE_TTL) as session:
            session.clock = self.clock
            session.catalog.clock = self.clock
            session.emit = self.events.append
            yield session

    async def serve(self, schedule: Schedule) -> None:
        settings = Settings(
            dest=f"file://{self.root}/dest", source="seekdb:///x", state_dir=self.root, lease_ttl=LEASE_TTL
        )
        await serve(settings, schedule, emit=self.events.append, stop=self.stop, clock=self.clock, opened=self.opened)

    def said(self, kind: type[Event], text: str = "") -> list[Event]:
        return [event for event in self.events if isinstance(event, kind) and text in str(event)]

    @asynccontextmanager
    async def serving(self, schedule: Schedule) -> AsyncIterator[None]:
        task = asyncio.create_task(self.serve(schedule))
        try:
            yield
            assert not task.done(), task
        finally:
            self.stop.set()
            async with asyncio.timeout(30):
                await task


@pytest.fixture
def site(tmp_path: Path) -> Site:
    store = MemoryStore()
    for _ in range(4):
        store.change()
    return Site(tmp_path, store)


async def infos(site: Site) -> list[tuple[int, int]]:
    async with session_on(site.root, None) as session:
        return [(info.backup_type, info.status) for info in await load_infos(session.repository)]


async def test_it_begins_to_archive_and_takes_what_is_due(site: Site) -> None:
    async with site.serving(Schedule("0 */3 * * *", "0 * * * *")):
        await until(lambda: len(site.said(Notice, "is complete")) >= 5, "five backups", every=0.01)
    assert site.said(Phase, "lead") and not site.said(Notice, "failed")
    announced = [event.at_us for event in site.said(Scheduled)]
    assert announced == sorted(set(announced)) and len(announced) >= 5
    assert all(at_us % 3_600_000_000 == 0 for at_us in announced)
    made = await infos(site)
    assert {status for _, status in made} == {BackupStatus.SUCCESS}
    assert {kind for kind, _ in made} == {BackupType.FULL, BackupType.INCREMENTAL}


async def test_a_destination_that_comes_late_is_waited_for_and_said_once(site: Site) -> None:
    site.fails = [UnreachableError("nobody there") for _ in range(5)]
    async with site.serving(Schedule()):
        await until(lambda: site.said(Phase, "lead"), "it leads", every=0.01)
    assert len(site.said(Notice, "nobody there")) == 1


async def test_a_failed_backup_is_said_and_the_next_one_is_made(site: Site) -> None:
    def fail() -> None:
        site.store.on_pass = None
        raise UnreachableError("the source is gone")

    site.store.on_pass = fail
    async with site.serving(Schedule("0 * * * *")):
        await until(lambda: site.said(Notice, "is complete"), "a backup", every=0.01)
    assert len(site.said(Notice, "full backup failed: the source is gone")) == 1


async def test_a_setting_that_is_wrong_ends_it(site: Site) -> None:
    site.fails = [ConfigError("no such thing")]
    with pytest.raises(ConfigError):
        await site.serve(Schedule())


async def test_a_round_that_was_stopped_stays_stopped(site: Site) -> None:
    async with session_on(site.root, site.store) as session:
        await archive.start(session)
        await archive.stop(session)
    async with site.serving(Schedule()):
        await until(lambda: site.said(Notice, "archiving:"), "it says so", every=0.01)
    async with session_on(site.root, site.store) as session:
        assert len(await load_rounds(session.repository)) == 1
