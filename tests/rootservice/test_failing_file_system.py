"""A real file system whose operations fail, at any of those that a backup consists of."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinator import _lazy_sqlite, session_on
from fuse_mount import FuseMount, fuse_mount
from memory_store import MemoryStore
from worlds import World, archive_to_the_end, assert_restores, back_up

from mover.errors import MoverError
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.sets import complete, load_infos
from mover.rootservice import archive
from mover.rootservice.session import Session

CODES = {
    name: getattr(errno, name)
    for name in ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "ESTALE", "ETIMEDOUT", "ENAMETOOLONG")
}
FOR_GOOD = 1 << 30
Job = Callable[[Session], Awaitable[Any]]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``small_and_fast``, but fsync is what is tested here."""
    monkeypatch.setattr("mover.store.seekdb.rebuild.PALF_FILE_BYTES", MemoryStore.palf_file)
    monkeypatch.setattr("mover.store.seekdb.rebuild._PALF_FILE_SIZE", MemoryStore.palf_file + 4096)
    monkeypatch.setattr("mover.rootservice.catalog._set_sqlite_pragmas", _lazy_sqlite)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[FuseMount]:
    with fuse_mount(tmp_path) as mounted:
        yield mounted


async def make_world(root: Path) -> World:
    """A store with a round and a full set."""
    root.mkdir()
    store = MemoryStore(seed=3)
    for _ in range(6):
        store.change()
    async with session_on(root, store) as session:
        await archive.start(session)
        await archive_to_the_end(session)
        await back_up(session, incremental=False)
    store.change()
    return World(root, store)


class Case:
    """A copy of a world whose destination is on the mount."""

    def __init__(self, world: World, mount: FuseMount, root: Path) -> None:
        self.world = world.copy(root)
        self.mount = mount
        shutil.move(root / "dest", mount.backing / root.name)  # not through it: that would take its time
        self.dest = mount.path / root.name
        self.behind = mount.backing / root.name
        self.image = self.world.store.image()

    def session(self, dest: Path):
        return session_on(self.world.root, self.world.store, dest=dest.as_uri())

    def remove(self) -> None:
        shutil.rmtree(self.world.root)
        shutil.rmtree(self.behind)

    async def run(self, job: Job, **plan: int) -> MoverError | None:
        """The job with operations that fail; what it raised. Anything but a typed error is a failure of the test."""
        try:
            async with self.session(self.dest) as session:
                self.mount.plan(**plan)
                await job(session)
        except MoverError as error:
            return error
        finally:
            self.mount.faults()
        return None

    async def check(self, job: Job, error: MoverError | None) -> None:
        """What the job said is true, and the next run does what this one could not."""
        async with self.session(self.behind) as session:
            sets = len(complete(await load_infos(session.repository)))
            if job is incremental and error is None:
                assert sets == 2, "it said that there is a backup"
            report = await validate(session.repository, ValidateRequest(everything=True))
            assert report.violations == []
            await archive_to_the_end(session)
            await back_up(session, incremental=True)
            report = await validate(session.repository, ValidateRequest(everything=True))
            assert report.violations == []
            assert len(complete(await load_infos(session.repository))) == sets + 1
            await assert_restores(session, self.world.store, self.world.root / "into", self.image)


async def incremental(session: Session) -> None:
    await back_up(session, incremental=True)


async def sweep_through(tmp_path: Path, mount: FuseMount, job: Job, chosen: Callable[[int], Any]) -> int:
    world = await make_world(tmp_path / "world")
    alone = Case(world, mount, tmp_path / "alone")
    assert await alone.run(job, at=None) is None
    count, _ = mount.counted()
    assert count > 100
    alone.remove()
    failures = 0
    for number, (at, name, times) in enumerate(chosen(count)):
        case = Case(world, mount, tmp_path / f"case{number}")
        error = await case.run(job, at=at, code=CODES[name], times=times)
        _, failed = mount.counted()
        try:
            if times == FOR_GOOD and failed:
                assert error is not None
            if error is not None:
                assert error.hint and error.exit_code in (1, 7)
                failures += 1
            await case.check(job, error)
        except BaseException as problem:
            problem.add_note(f"{name} at operation {at} of {count} ({failed[:3]}), {times} times; it said {error!r}")
            raise
        case.remove()
    return failures


def some(seed: int, cases: int) -> Callable[[int], Iterator[tuple[int, str, int]]]:
    def choose(count: int) -> Iterator[tuple[int, str, int]]:
        rng = random.Random(seed)
        names = itertools.cycle(CODES)
        for part in range(cases):
            at = rng.randrange(count * part // cases, max(count * part // cases + 1, count * (part + 1) // cases))
            yield at, next(names), rng.choice((1, FOR_GOOD))

    return choose


@pytest.mark.parametrize("job", [incremental, archive_to_the_end], ids=["backup", "archive"])
async def test_operations_that_fail(tmp_path: Path, mount: FuseMount, job: Job) -> None:
    """A typed error or a right backup, never a false success; and the next run goes on."""
    assert await sweep_through(tmp_path, mount, job, some(1, 5)) >= 1


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("job", [incremental, archive_to_the_end], ids=["backup", "archive"])
async def test_many_operations_that_fail(tmp_path: Path, mount: FuseMount, job: Job) -> None:
    """For `make soak`; MOVER_SOAK_CASES says how many, spread over the whole job, and MOVER_SOAK_SEED which."""
    seed, cases = int(os.environ.get("MOVER_SOAK_SEED", "1")), int(os.environ.get("MOVER_SOAK_CASES", "150"))
    assert await sweep_through(tmp_path, mount, job, some(seed, cases)) >= cases // 4
