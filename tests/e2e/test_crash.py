"""kill -9 and SIGTERM of everything at any moment: a crash costs only time."""

import asyncio
import random
import shutil
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from engine_load import check
from polling import until

from mover.media.backup_info import BackupStatus
from mover.repository.sets import load_infos

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def load(story):
    """The writers of the story, writing."""
    story.load.pause = 0.02
    story.load.start()
    try:
        yield story.load
    finally:
        await story.load.stop()


def _files(site):
    return {str(path.relative_to(site.tree)): path for path in site.tree.rglob("*") if path.is_file()}


def _remains(site, set_id):
    """Files that only the backup ``set_id`` wrote. Unfinished writes have names nobody reads: a sweep is theirs."""
    own = (f"/backup_{set_id}/", f"/macro_block_{set_id}.", f"/macro_block_index_{set_id}")
    return [path for path in _files(site) if ".tmp." not in path and any(name in path for name in own)]


def _writes(site, set_id):
    return any(f"/macro_block_{set_id}." in path for path in _files(site))


@asynccontextmanager
async def _announced(site, *arguments):
    """A background backup that has said at the destination that it is there."""
    async with site.repository() as repository, site.mover.running("backup", *arguments) as backup:

        async def doing():
            assert backup.running, f"it was over too soon: {backup.so_far()}"
            infos = await load_infos(repository)
            return infos and infos[-1].status == BackupStatus.DOING

        await until(doing, "the backup is announced", every=0.01)
        yield backup


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def no_archiver_is_left(story):
    """Each test starts its own."""
    yield
    await story.site.stop_archiver()


async def test_an_archiver_that_is_killed_loses_nothing(story, load):
    site = story.site
    rng = random.Random(5)
    for _ in range(4 if site.kind == "file" else 1):
        archiver = await site.archive()
        await load.until(rng.randint(1, 40))
        if rng.random() < 0.7:
            # Not before it works: the moment of the kill is somewhere in a turn, not in the start.
            before = (await site.round())["checkpoint_scn"]
            await site.archived(before + 1)
            await load.until(rng.randint(1, 20))
        await archiver.kill()
    committed = dict(load.committed)
    caught_up = await site.mover.ok("archivelog", "run", "--until-caught-up")
    assert caught_up["status"] == "DOING"
    assert (await site.mover.ok("validate", "--archive"))["ok"]
    async with site.restored() as copy:
        await check(copy.options, committed, row_bytes=load.row_bytes)


async def test_a_second_archiver_is_refused(file_story, tmp_path):
    site = file_story.site
    await site.archive()
    await site.archived(await site.scn())
    for second in (site.mover, site.mover.but(tmp_path / "elsewhere")):
        ran = await second.run("archivelog", "run", "--until-caught-up")
        assert ran.code == 4, str(ran)
    # The first one did not notice.
    await file_story.marks.write(1)
    await site.archived(file_story.marks.scns[file_story.marks.last])
    await site.stop_archiver()


async def test_a_backup_that_is_killed_leaves_nothing_that_matters(story, load):
    site = story.site
    rng = random.Random(11)
    await site.archive()
    for number in range(3 if site.kind == "file" else 1):
        sets = (await site.mover.ok("show", "sets"))["sets"]
        killed = max(found["backup_set_id"] for found in sets) + 1
        async with site.mover.running("backup", "incremental" if number % 2 else "full") as backup:
            if number == 0 and site.tree is not None:
                await until(lambda n=killed: _writes(site, n), "the backup writes blocks", every=0.01)
            else:
                # Somewhere between its start and its end.
                await asyncio.sleep(rng.uniform(0.8, 4))
            ended = not backup.running
            await backup.kill()
        made = await site.mover.ok("backup", "incremental")
        assert made["restorable"]
        sets = {found["backup_set_id"]: found for found in (await site.mover.ok("show", "sets"))["sets"]}
        if not ended and killed in sets and killed != made["backup_set_id"]:
            assert sets[killed]["status"] in {"FAILED", "COMPLETED"}
            if site.tree is not None and sets[killed]["status"] == "FAILED":
                assert _remains(site, killed) == []
    assert (await site.mover.ok("validate"))["ok"]
    async with site.restored("--set", 1) as copy:
        await check(copy.options, story.committed, row_bytes=load.row_bytes)
    await site.stop_archiver()


async def test_a_backup_that_is_terminated_cleans_up(story):
    site = story.site
    await site.archive()
    async with _announced(site, "full") as backup:
        ran = await backup.terminate()
    assert ran.code == 143, str(ran)
    last = (await site.mover.ok("show", "sets"))["sets"][-1]
    assert last["status"] == "FAILED"
    if site.tree is not None:
        assert _remains(site, last["backup_set_id"]) == []
    assert (await site.mover.ok("show", "progress"))["progress"] == []


async def test_a_backup_that_is_cancelled(file_story):
    site = file_story.site
    await site.archive()
    async with _announced(site, "full") as backup:
        answer = await site.mover.run("backup", "cancel")
        ran = await backup.wait()
    # It may have been too late for the cancel; never a hang, and never a set that is neither.
    assert (answer.code, ran.code) in {(0, 6), (0, 0), (4, 0)}, f"{answer}\n{ran}"
    status = (await site.mover.ok("show", "sets"))["sets"][-1]["status"]
    assert status == ("FAILED" if ran.code == 6 else "COMPLETED")
    assert (await site.mover.run("backup", "cancel")).code == 4


async def test_a_restore_that_is_terminated_leaves_the_directory_as_it_was(file_story):
    site = file_story.site
    target = site.new_target()
    target.mkdir()
    async with site.mover.running("restore", "--target", target, "--set", 1) as restore:
        await until(lambda: any(target.iterdir()), "the restore writes", every=0.005)
        ran = await restore.terminate()
    assert ran.code == 143, str(ran)
    assert list(target.iterdir()) == []
    async with site.mover.running("restore", "--target", target, "--set", 1) as restore:
        await until(lambda: any(target.iterdir()), "the restore writes", every=0.005)
        await restore.kill()
    assert not (target / "store").exists(), "half a store has the name of a store"
    shutil.rmtree(target)


async def test_nothing_is_lost_with_the_catalog(file_story):
    site = file_story.site
    before = await site.mover.ok("show", "sets")
    windows = await site.mover.ok("show", "windows")
    shutil.rmtree(site.mover.directory / "state")
    assert await site.mover.ok("show", "sets") == before
    assert await site.mover.ok("show", "windows") == windows
    await site.mover.ok("archivelog", "run", "--until-caught-up")
    made = await site.mover.ok("backup", "incremental")
    assert made["backup_type"] == "I"
    assert made["backup_set_id"] == max(found["backup_set_id"] for found in before["sets"]) + 1


async def test_an_engine_that_is_killed(file_story):
    """The archiver says that the source is gone or waits for it; with the engine back it goes on without a hole."""
    site = file_story.site
    archiver = await site.archive()
    await file_story.marks.write(5)
    await site.server.kill()
    await site.server.start(boot_seconds=120)
    await file_story.marks.write(5)
    scn = file_story.marks.scns[file_story.marks.last]

    async def archived():
        if not archiver.running:
            ran = await archiver.wait()
            assert ran.code == 7, str(ran)
            await site.archive()
        return (await site.round())["checkpoint_scn"] >= scn

    await until(archived, "the archive goes on", 120)
    assert (await site.round())["status"] == "DOING"
    assert (await site.mover.ok("validate", "--archive"))["ok"]
