"""The mount of the destination goes away while an archiver and a backup of a real engine write to it."""

import asyncio
import os

import pytest
from fuse_mount import fuse_mount
from polling import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_backup_and_archiver_end_with_7_and_the_disk_behind_stays_empty(lone, tmp_path):
    with fuse_mount(tmp_path, below="dest") as mount:
        (mount.path / "dest").mkdir()
        mover = lone.mover.but(tmp_path / "home", dest=(mount.path / "dest").as_uri())
        await mover.ok("archivelog", "start")
        async with mover.running("archivelog", "run", "--progress-interval", "1s") as archiver:
            await until(lambda: '"archive_progress"' in archiver.so_far().out, "the archiver works")
            mount.faults(hang=("write",))
            backup = asyncio.ensure_future(mover.run("backup", "full"))
            await until(lambda: mount.hung("write"), "somebody writes", every=0.01)
            mount.unmount()
            mount.faults()
            await lone.query("CREATE TABLE test.after_that (id INT)")  # something to archive
            async with asyncio.timeout(60):
                ran = await backup
                ended = await archiver.wait()
        for said in (ran.error, ended.lines[-1]["error"]):
            assert (said["kind"], said["code"]) == ("MountError", -9051), said
        assert (ran.code, ended.code) == (7, 7)
        # A next one sees an empty directory where there was a round.
        for command in (("backup", "full"), ("archivelog", "run", "--until-caught-up"), ("archivelog", "start")):
            ran = await mover.run(*command)
            assert (ran.code, ran.error["code"]) == (7, -9051), str(ran)
        assert [name for _, below, names in os.walk(mount.path / "dest") for name in below + names] == []
