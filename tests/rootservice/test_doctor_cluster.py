"""Doctor on a cluster of many PGs: what is there, what is not, and the archive against the log that is kept."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from tiny_cluster import TinyCluster

from mover.config import Settings
from mover.rootservice import archive
from mover.rootservice.doctor import examine
from mover.rootservice.doctor_checks import Check, State
from mover.rootservice.session import open_session


@pytest.fixture
def cluster(tmp_path: Path) -> TinyCluster:
    cluster = TinyCluster(tmp_path / "sim", tenants=2, pgs=2)
    for key in cluster.logs:
        cluster.append(key, *(b"%d" % n * 40 for n in range(4)))
    return cluster


def settings_of(cluster: TinyCluster, tmp_path: Path) -> Settings:
    return Settings(
        source=cluster.url,
        dest=(tmp_path / "dest").as_uri(),
        state_dir=tmp_path / "state",
        cluster_name=cluster.name,
    )


async def examined(cluster: TinyCluster, tmp_path: Path) -> dict[str, Check]:
    found = await examine(settings_of(cluster, tmp_path), seconds=0, on_check=lambda _check: None)
    return {f"{check.subject} {check.name}": check for check in found.checks}


async def test_a_cluster_and_its_round(cluster: TinyCluster, tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    checks = await examined(cluster, tmp_path)
    for name in ("reach", "tenants", "replicas", "log"):
        assert checks[f"source {name}"].state == State.OK, checks
    assert "t1, t2" in checks["source tenants"].detail and "4 PGs" in checks["source replicas"].detail
    assert checks["destination archive"].state == State.FAIL
    assert checks["catalog reach"].state == State.OK
    settings = settings_of(cluster, tmp_path)
    async with open_session(settings, need_source=True) as session:
        await archive.start(session)
    assert (await examined(cluster, tmp_path))["destination archive"].state == State.WARN
    async with open_session(settings, need_source=True) as session:
        await archive.run(session, stop=asyncio.Event(), until_caught_up=True)
    check = (await examined(cluster, tmp_path))["destination archive"]
    assert check.state == State.OK and "durable" in check.detail


async def test_files_that_are_not_there(cluster: TinyCluster, tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    (cluster.store / "clog").rename(cluster.store / "elsewhere")
    checks = await examined(cluster, tmp_path)
    assert [name for name, check in checks.items() if check.subject == "source" and check.state == State.FAIL]


async def test_another_name_than_the_clusters(cluster: TinyCluster, tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    found = await examine(
        dataclasses.replace(settings_of(cluster, tmp_path), cluster_name="other"),
        seconds=0,
        on_check=lambda _check: None,
    )
    [check] = [check for check in found.checks if check.name == "settings"]
    assert check.state == State.FAIL and "--cluster-name tiny" in (check.advice or "")


async def test_a_catalog_that_does_not_answer(cluster: TinyCluster, tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    settings = dataclasses.replace(
        settings_of(cluster, tmp_path), catalog="mysql+asyncmy://user:TOPSECRET1@127.0.0.1:9/mover"
    )
    found = await examine(settings, seconds=0, on_check=lambda _check: None)
    [check] = [check for check in found.checks if check.subject == "catalog"]
    assert check.state == State.FAIL and "TOPSECRET1" not in f"{check}"
