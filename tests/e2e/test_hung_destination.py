"""A destination that stops answering: whoever stops the archiver does not wait for it, and nothing is lost."""

from contextlib import asynccontextmanager

import pytest
from fault_proxy import FaultProxy
from polling import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Every process of the interpreter runs this at its start: a disk whose syncs never end once the file is there.
_HANG = """
import os, threading
sync = os.fdatasync
def hang(fd):
    if os.path.exists({flag!r}):
        open({flag!r} + ".hit", "w").close()
        threading.Event().wait()
    sync(fd)
os.fdatasync = hang
"""


@asynccontextmanager
async def _hanging(site, directory):
    """The command line with a destination that can be made to hang; what does that; and whether it does."""
    mover = site.mover.but(directory)
    if site.kind == "file":
        flag = directory / "hang"
        (directory / "sitecustomize.py").write_text(_HANG.format(flag=str(flag)))
        mover.environment["PYTHONPATH"] = str(directory)
        yield mover, flag.touch, flag.with_name("hang.hit").exists
        return
    endpoint = site.mover.settings["dest"].split("endpoint=")[1]
    async with FaultProxy(endpoint) as proxy:
        mover.settings["dest"] = site.mover.settings["dest"].replace(endpoint, proxy.endpoint)

        def hang():
            for method in ("PUT", "GET", "HEAD"):
                proxy.fault("hang", method, times=1000)
            seen.append(len(proxy.seen))

        seen = []
        yield mover, hang, lambda: len(proxy.seen) > seen[-1]


async def test_a_hung_destination_does_not_delay_sigterm(story, tmp_path):
    site, marks = story.site, story.marks
    await site.stop_archiver()
    async with _hanging(site, tmp_path) as (mover, hang, hangs), mover.running("archivelog", "run") as archiver:
        await marks.write(1)
        await until(lambda: archiver.running and '"archive_progress"' in archiver.so_far().out, "the archiver works")
        hang()
        await marks.write(3)
        await until(hangs, "the archiver waits for the destination")
        ran = await archiver.terminate(seconds=15)
    assert ran.code == 143, str(ran)
    assert "did not answer" in ran.lines[-1]["error"]["message"], str(ran)
    await site.mover.ok("archivelog", "run", "--until-caught-up")
    await site.archived(marks.scns[marks.last])
    assert (await site.mover.ok("validate", "--archive"))["ok"]
