"""Backups on a real NFS 4.1 server; and two archivers that see it through caches of their own."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from coordinator import session_on, small_and_fast  # noqa: F401 - the fixture
from memory_store import MemoryStore
from nfs_server import NfsMount, NfsServer, nfs_mount, nfs_server
from polling import until
from worlds import archive_to_the_end, assert_restores, back_up

from mover.errors import MoverError, PreconditionError
from mover.recovery.inspect import inspect_path
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.archive_state import load_record
from mover.rootservice import archive
from mover.rootservice.sweep import sweep
from mover.target.files import FileTarget

pytestmark = pytest.mark.usefixtures("small_and_fast")
# What nfs(5) lets a client believe for acdirmin: which names there are, and which not. Attributes are asked for when a
# file is opened (close-to-open), which FUSE has no way to say but by not keeping them.
CACHING = {"entry_timeout": 3, "negative_timeout": 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsServer]:
    with nfs_server(tmp_path_factory.mktemp("ganesha")) as running:
        yield running


@pytest.fixture
def mounts(server: NfsServer, tmp_path: Path) -> Iterator[tuple[NfsMount, NfsMount]]:
    """The server as two hosts see it, each with its caches."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(nfs_mount(tmp_path / name, server, **CACHING)) for name in ("one", "two"))
        yield first, second


async def test_a_backup_goes_there_and_comes_back_through_another_mount(
    tmp_path: Path, mounts: tuple[NfsMount, NfsMount]
) -> None:
    store = MemoryStore(seed=8)
    for _ in range(12):
        store.change()
    here, there = ((mount.path / "whole").as_uri() for mount in mounts)
    async with session_on(tmp_path, store, dest=here) as session:
        await archive.start(session)
        await archive_to_the_end(session)
        await back_up(session, incremental=False)
        store.change()
        image = store.image()
        await back_up(session, incremental=True)
    async with session_on(tmp_path, store, dest=there, catalog="another") as session:
        report = await validate(session.repository, ValidateRequest(everything=True))
        assert report.violations == []
        await assert_restores(session, store, tmp_path / "into", image)


async def test_two_archivers_on_two_hosts(
    tmp_path: Path, mounts: tuple[NfsMount, NfsMount], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is refused; once it believes the first dead it goes on, the first notices, and no log is lost."""
    store = MemoryStore(seed=9)
    store.change()
    here, there = ((mount.path / "raced").as_uri() for mount in mounts)
    async with session_on(tmp_path, store, dest=here, catalog="one") as first:
        await archive.start(first)
        running = asyncio.ensure_future(archive.run(first, until_caught_up=False, stop=asyncio.Event()))
        while not (record := await load_record(first.repository, 1)) or not record.holder:
            assert not running.done()
            await asyncio.sleep(0.01)
        other = copy.deepcopy(store)  # what a log service would give to a second host
        other.holders.clear()
        monkeypatch.setattr("mover.rootservice.lease.this_holder", lambda: "host2/1/1")
        async with session_on(tmp_path, other, dest=there, catalog="two") as second:
            with pytest.raises(PreconditionError, match="is being archived by") as refused:
                await archive_to_the_end(second)
            assert refused.value.exit_code == 4
            second.clock.us += 10**13  # its clock says that the first one has been silent for long
            other.write_log(3)
            await archive_to_the_end(second)
        while not running.done():
            store.write_log()
            await asyncio.sleep(0.01)
        with pytest.raises(MoverError) as noticed:
            await running
        assert noticed.value.exit_code != 0
    async with session_on(tmp_path, other, dest=there, catalog="two") as session:
        session.clock.us += 10**14
        other.write_log(2)
        await archive_to_the_end(session)
        await back_up(session, incremental=False)
        report = await validate(session.repository, ValidateRequest(everything=True))
        assert report.violations == []
        await assert_restores(session, other, tmp_path / "into", other.image())


async def test_a_file_that_is_deleted_while_it_is_open_is_nobodys(
    tmp_path: Path, server: NfsServer, mounts: tuple[NfsMount, NfsMount]
) -> None:
    """NFS calls it .nfs...; it goes by itself: it is neither listed nor a leftover, and sweep lets it lie."""
    store = MemoryStore(seed=10)
    store.change()
    here, there = (mount.path / "silly" for mount in mounts)
    async with session_on(tmp_path, store, dest=here.as_uri()) as session:
        await archive.start(session)
        await archive_to_the_end(session)
        (record,) = here.rglob("mover_round")
        with (record.parent / "doomed").open("wb") as open_file:
            open_file.write(b"x")
            open_file.flush()
            (record.parent / "doomed").unlink()
            (left,) = (server.export / "top").rglob(".nfs*")
            assert (there / left.relative_to(server.export / "top" / "silly")).exists(), "as another host sees it"
            target = FileTarget(str(there), there.as_uri())
            await target.open()
            try:
                assert [info.path async for info in target.list("") if "/.nfs" in info.path] == []
                assert [found async for found in target.leftovers("")] == []
            finally:
                await target.aclose()
            session.clock.us += 10**13
            assert (await sweep(session, older_than=60, plan=False)).removals == ()
            report = await validate(session.repository, ValidateRequest(everything=True))
            assert report.violations == []
            seen = [entry async for entry in inspect_path(session.settings, str(there), records=False)]
            assert seen and not [entry for entry in seen if "/.nfs" in entry["path"]]
            assert left.exists()
        await until(lambda: not left.exists(), "the last who had it has closed it")
