"""The lease: one winner, epochs that only grow, and nothing written by whoever lost it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import update

from mover.config import Settings
from mover.errors import ConfigError, PreconditionError, StateError, UnreachableError
from mover.rootservice.catalog import Catalog
from mover.rootservice.catalog_tables import backup_task, lease_table
from mover.rootservice.lease import Lease, holder_is_dead, process_start_ticks, this_holder
from mover.rootservice.state import catalog_url


class ManualClock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.us = 1_000_000_000

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()  # renewals happen when a test calls renew()


def rival(catalog: Catalog, clock: ManualClock, **kwargs: int) -> Lease:
    """A lease whose holder is another, living process: ours under another name would be seen as dead."""
    catalog.clock = clock
    lease = Lease(catalog, clock, "archive:1", **kwargs)
    lease.holder = f"elsewhere/{id(lease)}/1"
    return lease


async def test_one_of_many_takers_wins(catalog: Catalog) -> None:
    clock = ManualClock()
    results = await asyncio.gather(*(rival(catalog, clock).acquire() for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, PreconditionError) for result in results) == 19


async def test_takeover_after_expiry_raises_the_epoch_and_fences_the_old_holder(catalog: Catalog) -> None:
    clock = ManualClock()
    old, new = rival(catalog, clock), rival(catalog, clock)
    first = await old.acquire()
    clock.us += 16_000_000
    assert await new.acquire() == first + 1
    with pytest.raises(StateError):
        async with catalog.begin() as connection:
            await old.guard(connection)
            raise AssertionError("a stale holder got past the guard")
    new.check()


async def test_a_holder_paused_past_its_lease_refuses_before_anyone_took_over(catalog: Catalog) -> None:
    clock = ManualClock()
    lease = rival(catalog, clock)
    await lease.acquire()
    lease.check()
    clock.us += 15_000_000
    with pytest.raises(StateError, match="not renewed"):
        lease.check()


async def test_guarded_transaction_of_a_stale_holder_writes_nothing(catalog: Catalog) -> None:
    clock = ManualClock()
    lease = rival(catalog, clock)
    await lease.acquire()
    async with catalog.begin() as connection:
        await connection.execute(update(lease_table).values(epoch=lease.epoch + 1, holder="somebody"))
    with pytest.raises(StateError):
        async with catalog.begin() as connection:
            await connection.execute(
                backup_task.insert().values(
                    tenant_id=1, backup_set_id=1, backup_type="D", status="DOING", owner_epoch=1, start_time=0
                )
            )
            await lease.guard(connection)
    assert await catalog.rows(backup_task) == []


async def test_release_keeps_the_epoch_and_floor_beats_a_fresh_catalog(catalog: Catalog) -> None:
    clock = ManualClock()
    async with rival(catalog, clock, floor=41) as lease:
        assert lease.epoch == 42
    async with rival(catalog, clock) as lease:
        assert lease.epoch == 43


async def test_a_dead_process_of_this_host_is_replaced_at_once(catalog: Catalog) -> None:
    clock = ManualClock()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        holder = f"{this_holder().split('/')[0]}/{child.pid}/{process_start_ticks(child.pid)}"
        assert not holder_is_dead(holder)
        catalog.clock = clock
        dead = Lease(catalog, clock, "backup:1")
        dead.holder = holder
        await dead.acquire()
        with pytest.raises(PreconditionError) as refused:
            await Lease(catalog, clock, "backup:1").acquire()
        assert holder in refused.value.message
    finally:
        child.communicate()
    assert holder_is_dead(holder)
    assert await Lease(catalog, clock, "backup:1").acquire() == dead.epoch + 1


def test_only_a_proven_death_counts() -> None:
    assert not holder_is_dead(this_holder())
    assert not holder_is_dead("another-host/1/1")
    assert not holder_is_dead("")
    assert holder_is_dead(f"{this_holder().split('/')[0]}/{os.getpid()}/1")


async def test_a_bad_catalog_url_is_a_configuration_error_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        await Catalog.open("not a url")
    with pytest.raises(UnreachableError) as failed:
        await Catalog.open("mysql+asyncmy://u:s3cret@127.0.0.1:1/x")
    assert "s3cret" not in str(failed.value)
    urls = [catalog_url(Settings(state_dir=tmp_path, dest=f"file:///{place}")) for place in "aab"]
    assert urls[0] == urls[1] != urls[2]
