"""A coordinator that is paused until its lease is over, in front of any call that changes the destination.

Nothing is published after that: what the destination holds is what it held when the lease ended, and whoever comes next
goes on from there.
"""

from __future__ import annotations

import asyncio
import copy
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from coordinator import session_on, small_and_fast, target_of  # noqa: F401 - the fixture
from memory_store import MemoryStore
from worlds import archive_to_the_end, assert_restores, back_up

from mover.errors import MoverError
from mover.media.backup_info import BackupStatus
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.sets import load_infos
from mover.rootservice import archive
from mover.rootservice.round_views import archive_view
from mover.rootservice.session import Session
from mover.rootservice.sweep import sweep
from mover.target import fence

pytestmark = pytest.mark.usefixtures("small_and_fast")
TTL = 3600.0  # of the sessions; their clock moves only when it is told to


async def _full(session: Session) -> None:
    await back_up(session, incremental=False)


async def _incremental(session: Session) -> None:
    await back_up(session, incremental=True)


async def _start(session: Session) -> None:
    await archive.stop(session)
    await archive.start(session)


async def _sweep(session: Session) -> None:
    session.clock.us += 10**10  # type: ignore[attr-defined]
    await sweep(session, older_than=60, plan=False)


JOBS: dict[str, Callable[[Session], Awaitable[Any]]] = {
    "full": _full,
    "incremental": _incremental,
    "archivelog run": archive_to_the_end,
    "archivelog stop": archive.stop,
    "archivelog stop and start": _start,
    "sweep": _sweep,
}
# A request is no publication: whoever has the lease decides what becomes of it.
UNFENCED = ("mover_stop",)


class Place:
    """A destination that can be looked at from beside, and copied."""

    def __init__(self, root: Path, weed: Any = None) -> None:
        self.root = root
        self.weed = weed
        self.client = weed.client() if weed else None
        self.prefix = f"lost{root.parent.name}-{root.name}"

    @property
    def options(self) -> dict[str, Any]:
        if self.weed is None:
            return {"faulty": {"append": True}}
        return {
            "faulty": {"append": False},
            "dest": self.weed.url(self.prefix, profile="seaweedfs"),
            "memory": 64 << 20,
        }

    def _objects(self) -> Iterator[str]:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket="mover", Prefix=f"{self.prefix}/"):
            yield from (item["Key"] for item in page.get("Contents", ()))

    def content(self) -> dict[str, bytes]:
        """Everything that is published."""
        if self.weed is None:
            files = (path for path in (self.root / "dest").rglob("*") if path.is_file() and ".tmp." not in path.name)
            return {str(path.relative_to(self.root)): path.read_bytes() for path in files}
        return {key: self.client.get_object(Bucket="mover", Key=key)["Body"].read() for key in self._objects()}

    def copy(self, root: Path) -> Place:
        shutil.copytree(self.root, root)
        place = Place(root, self.weed)
        if self.weed is not None:
            for key in self._objects():
                self.client.copy_object(
                    Bucket="mover", Key=key.replace(self.prefix, place.prefix), CopySource=f"mover/{key}"
                )
        return place


async def _world(place: Place) -> MemoryStore:
    """A round, a full set, log that is not archived yet, and a backup that died."""
    store = MemoryStore(seed=11)
    for _ in range(8):
        store.change()
    async with session_on(place.root, store, **place.options) as session:
        await archive.start(session)
        await archive_to_the_end(session)
        await _full(session)
    store.change()
    options = place.options
    options["faulty"]["die_at"] = 9
    async with session_on(place.root, store, **options) as session:
        with pytest.raises(MoverError):
            await _incremental(session)
    store.change()
    return store


@contextmanager
def _paused_at(session: Session, place: Place, step: int | None) -> Iterator[dict[str, Any]]:
    """Notes what the destination holds when the lease ends in front of changing call ``step``."""
    seen: dict[str, Any] = {"fenced": []}

    def look(number: int, name: str) -> None:
        seen["fenced"].append(bool(fence._checks.get()))
        assert seen["fenced"][-1] or name.endswith(UNFENCED), f"nothing keeps {name} back"
        if number == step:
            seen["name"], seen["content"] = name, place.content()
            before = target_of(session).names[number - 1] if number else ""
            # The list of the tenant and of the cluster are written side by side: one may be on its way already.
            beside = name.endswith("_backup_info") and before.endswith("_backup_info")
            seen["on its way"] = before.split()[-1] if beside else " "
            session.clock.us += round(2 * TTL * 1e6)  # type: ignore[attr-defined]

    target_of(session).on_change = look
    yield seen
    target_of(session).on_change = None


async def _pause_everywhere(tmp_path: Path, job: str, weed: Any, every: int) -> None:
    (tmp_path / "world").mkdir()
    world = Place(tmp_path / "world", weed)
    store = await _world(world)
    alone = world.copy(tmp_path / "alone")
    async with session_on(alone.root, copy.deepcopy(store), **alone.options) as session:
        with _paused_at(session, alone, None) as seen:
            await JOBS[job](session)
    steps = [number for number, held in enumerate(seen["fenced"]) if held]
    assert len(steps) >= 2
    for step in steps[:: every or 1] if every < len(steps) else steps[-1:]:
        case, own = world.copy(tmp_path / f"case{step}"), copy.deepcopy(store)
        async with session_on(case.root, own, **case.options) as session:
            with _paused_at(session, case, step) as seen, pytest.raises(MoverError):
                await JOBS[job](session)
            await asyncio.sleep(0)
            left = {path: data for path, data in case.content().items() if not path.endswith(seen["on its way"])}
            held = {path: data for path, data in seen["content"].items() if not path.endswith(seen["on its way"])}
            assert left == held, f"something was published after the lease, at {seen['name']}"
        async with session_on(case.root, own, **case.options) as session:
            session.clock.us += round(4 * TTL * 1e6)  # type: ignore[attr-defined]
            if await _status(session) == "DOING":
                await archive_to_the_end(session)  # or the end of the round, where that was asked for
            if await _status(session) != "DOING":
                await archive.start(session)
                await archive_to_the_end(session)
            await _full(session)
            assert (await validate(session.repository, ValidateRequest(everything=True))).violations == []
            assert (await load_infos(session.repository))[-1].status == BackupStatus.SUCCESS
            await assert_restores(session, own, tmp_path / "into", own.image())
        shutil.rmtree(case.root)


async def _status(session: Session) -> str:
    status = (await archive_view(session)).rounds[-1].status
    if status == "STOPPING":
        status = (await archive.stop(session)).status
    return str(status)


@pytest.mark.parametrize("job", JOBS)
async def test_nothing_is_published_after_the_lease(tmp_path: Path, job: str) -> None:
    await _pause_everywhere(tmp_path, job, None, int(os.environ.get("CHAOS_EVERY", "4")))


@pytest.mark.parametrize("job", ["incremental", "archivelog run"])
async def test_nothing_is_published_after_the_lease_over_s3(
    tmp_path: Path, job: str, weed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in weed.environment.items():
        monkeypatch.setenv(name, value)
    await _pause_everywhere(tmp_path, job, weed, 7)
