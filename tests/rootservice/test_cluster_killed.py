"""A coordinator of a cluster that dies at any call to the destination: the next one goes on, and nothing is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from cluster_place import Place, truth
from coordinator import small_and_fast  # noqa: F401 - the fixture
from faulty_target import FaultyTarget
from sim_archive import Archive
from tiny_cluster import TinyCluster

from mover.errors import MoverError
from mover.media.backup_info import BackupStatus
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.remains import remains_of
from mover.repository.sets import load_infos
from mover.repository.tenants import of_tenant
from mover.rootservice import archive, backup
from mover.rootservice.session import Session, open_session

pytestmark = pytest.mark.usefixtures("small_and_fast")


async def with_faults(settings: Any, job: Any, **faults: Any) -> FaultyTarget:
    """Run a job on a destination that dies; errors of ours are what is expected then."""
    async with open_session(settings, need_source=True) as session:
        target = FaultyTarget(session.repository.target, **faults)
        session.repository = dataclasses.replace(session.repository, target=target)
        try:
            await job(session)
        except MoverError:
            assert target.dead
        return target


async def clean(session: Session) -> None:
    report = await validate(session.repository, ValidateRequest())
    # What a writer that died left at the end of a file is told, and no damage.
    assert report.violations == []


def catch_up(session: Session) -> Any:
    return archive.run(session, until_caught_up=True, stop=asyncio.Event())


@pytest.mark.parametrize(
    ("append", "after"),
    [
        (True, False),
        (False, True),
        pytest.param(True, True, marks=pytest.mark.soak),
        pytest.param(False, False, marks=pytest.mark.soak),
    ],
)
def test_an_archiver_that_dies_at_any_call(tmp_path: Path, append: bool, after: bool) -> None:
    cluster = TinyCluster(tmp_path / "sim", tenants=2, pgs=1)
    keys = list(cluster.logs)
    place = Place(tmp_path, cluster, compression="none")
    place.start()
    step, died = 0, True
    while died:
        for key in keys:
            cluster.append(key, b"%d" % step, b"more")
        target = asyncio.run(with_faults(place.settings, catch_up, die_at=step, after=after, append=append))
        died = target.dead
        if step % 2:
            # The catalog is lost with the host.
            shutil.rmtree(place.root / "state", ignore_errors=True)
        place.catch_up()
        for key in keys:
            assert b"".join(place.archived(1, key)) == truth(cluster, key)
        step += 1
    assert step > 5
    place.run(clean, need_source=False)


@pytest.mark.parametrize("after", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["before", "after"])
def test_a_start_that_dies_at_any_call(tmp_path: Path, after: bool) -> None:
    step, died = 0, True
    while died:
        root = tmp_path / f"case{step}"
        root.mkdir()
        cluster = TinyCluster(root / "sim", tenants=1, pgs=2)
        for key in cluster.logs:
            cluster.append(key, b"one", b"two")
        place = Place(root, cluster, compression="none")
        died = asyncio.run(with_faults(place.settings, archive.start, die_at=step, after=after)).dead
        try:
            place.start()
        except MoverError as error:
            assert "is DOING" in error.message or not died
        place.catch_up()
        current = max(view.info.round_id for view in place.run(archive_rounds, need_source=False))
        for key in cluster.logs:
            assert b"".join(place.archived(current, key)) == truth(cluster, key)
        shutil.rmtree(root)
        step += 1
    assert step > 8


async def archive_rounds(session: Session) -> Any:
    from mover.rootservice.round_views import archive_view

    views = (await archive_view(session)).rounds
    newest = [view for view in views if view.info.round_id == max(v.info.round_id for v in views)]
    assert {view.status for view in newest} == {"DOING"}
    return views


@pytest.mark.parametrize("after", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["before", "after"])
def test_a_backup_that_dies_at_any_call(tmp_path: Path, after: bool) -> None:
    made = Archive(
        tmp_path, seed=8, observers=2, tenants=1, pgs=2, blocks=2, block_size=32 << 10, log_size=256 << 10,
    )  # fmt: skip
    made.run(archive.start)
    made.catch_up()

    async def full(session: Session) -> None:
        await backup.run(session, incremental=False, plan=False, stop=asyncio.Event())

    async def looked(session: Session) -> int:
        own = of_tenant(session.repository, 1001)
        infos = await load_infos(own)
        for info in infos:
            if info.status == BackupStatus.FAILED:
                assert await remains_of(own, info) == []
        assert infos[-1].status == BackupStatus.SUCCESS
        await clean(session)
        return infos[-1].inc_backup_set_id

    step, died, number = 0, True, 0
    while died:
        died = asyncio.run(with_faults(made.settings, full, die_at=step, after=after)).dead
        made.run(full)
        newest = made.run(looked, need_source=False)
        assert newest > number
        number, step = newest, step + 3
    assert step > 12
