"""A directory that is not the destination it was: NFS that is not mounted looks like a new one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from coordinator import session_on, small_and_fast  # noqa: F401 - the fixture
from memory_store import MemoryStore

from mover.config import Settings
from mover.errors import OB_MOUNT_FILE_NOT_VALID, MountError, UnreachableError
from mover.repository.archive_state import load_record
from mover.rootservice import archive, backup
from mover.rootservice.catalog_rebuild import rebuild
from mover.rootservice.session import Session, open_session

pytestmark = pytest.mark.usefixtures("small_and_fast")


async def archived(session: Session) -> None:
    await archive.run(session, until_caught_up=True, stop=asyncio.Event())


async def backed_up(session: Session) -> None:
    await backup.run(session, incremental=False, plan=False, stop=asyncio.Event())


async def begin(root: Path, store: MemoryStore) -> None:
    store.change()
    async with session_on(root, store) as session:
        await archive.start(session)
        await archived(session)


def files_below(root: Path) -> list[str]:
    return [name for _, _, names in os.walk(root) for name in names]


@pytest.mark.parametrize("job", [archive.start, archived, backed_up])
async def test_an_empty_directory_in_the_place_of_a_known_destination(tmp_path: Path, job) -> None:
    """Nothing is written to it, and no round begins there, until somebody says that it is meant."""
    store = MemoryStore()
    await begin(tmp_path, store)
    (tmp_path / "dest").rename(tmp_path / "not mounted")
    async with session_on(tmp_path, store) as session:
        with pytest.raises(MountError, match=r"catalog knows 1 .* not mounted") as refused:
            await job(session)
        assert (refused.value.exit_code, refused.value.code) == (7, OB_MOUNT_FILE_NOT_VALID)
        assert "catalog rebuild" in (refused.value.hint or "")
        assert files_below(tmp_path / "dest") == []
        await rebuild(session)
        assert (await archive.start(session)).info.round_id == 1
        await archived(session)


@pytest.mark.parametrize("job", [archived, backed_up])
async def test_a_round_whose_mount_file_is_gone(tmp_path: Path, job) -> None:
    store = MemoryStore()
    await begin(tmp_path, store)
    (found,) = (tmp_path / "dest").rglob("mount_file")
    found.unlink()
    before = files_below(tmp_path / "dest")
    async with session_on(tmp_path, store) as session:
        with pytest.raises(MountError, match="mount_file is missing") as refused:
            await job(session)
        assert refused.value.exit_code == 7
    assert files_below(tmp_path / "dest") == before


async def test_a_mount_file_that_goes_away_while_archiving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server can lose what it exports and keep the handles that it gave out."""
    monkeypatch.setattr("mover.rootservice.archiver.LISTING_SECONDS", 0)
    store = MemoryStore()
    await begin(tmp_path, store)
    (found,) = (tmp_path / "dest").rglob("mount_file")
    async with session_on(tmp_path, store) as session:
        running = asyncio.ensure_future(archive.run(session, until_caught_up=False, stop=asyncio.Event()))
        while not (record := await load_record(session.repository, 1)) or not record.holder:
            await asyncio.sleep(0)
        found.unlink()
        while not running.done():
            store.write_log()
            await asyncio.sleep(0.01)
        with pytest.raises(MountError, match="mount_file is missing"):
            await running


async def test_only_a_first_round_makes_the_directory(tmp_path: Path) -> None:
    settings = Settings(dest=(tmp_path / "mnt/dest").as_uri(), source="seekdb:///nowhere", state_dir=tmp_path / "state")
    with pytest.raises(UnreachableError, match="no such file") as refused:
        async with open_session(settings, need_source=True):
            pass
    assert "mount it" in (refused.value.hint or "")
    assert not (tmp_path / "mnt").exists()
