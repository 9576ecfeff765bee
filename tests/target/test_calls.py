"""Calls into a file system that does not answer: a bounded number of threads, and a clear end."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from mover.errors import UnreachableError
from mover.target.calls import Calls
from mover.target.files import FileTarget
from mover.target.threads import Threads


async def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def test_when_every_thread_hangs_calls_fail_at_once_and_recover(tmp_path):
    threads = Threads(3, "test")
    calls = Calls(threads, 0.2, "/mnt")
    answers = threading.Event()
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(UnreachableError, match="did not answer"):
            await calls.run(lambda: answers.wait(30), "read", "f")
    await until(lambda: threads.all_busy_for(0.2))
    calls.timeout = 30
    begun = []
    for _ in range(100):
        threads.all_busy_for = lambda seconds: Threads.all_busy_for(threads, 0.2)
        with pytest.raises(UnreachableError, match="every thread waits") as caught:
            await calls.run(lambda: begun.append(1), "read", "f")
    assert caught.value.hint and caught.value.exit_code == 7
    assert threading.active_count() <= before + 3
    assert begun == []
    answers.set()
    await until(lambda: not threads.all_busy_for(0.2))
    assert await calls.run(lambda: "back", "read", "f") == "back"
    threads.shutdown()


async def test_a_call_that_was_given_up_in_line_never_runs():
    threads = Threads(1, "test")
    calls = Calls(threads, 0.2, "/mnt")
    answers, ran = threading.Event(), []
    with pytest.raises(UnreachableError):
        await calls.run(lambda: answers.wait(30), "read", "f")
    calls.timeout = 30
    task = asyncio.create_task(calls.run(lambda: ran.append(1), "read", "f"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    answers.set()
    await calls.run(lambda: None, "read", "f")
    assert ran == []
    threads.shutdown()


async def test_the_event_loop_goes_on_while_calls_hang(tmp_path, monkeypatch):
    target = FileTarget(str(tmp_path), "file:///hung", threads=2, timeout=0.5)
    await target.open()
    answers = threading.Event()
    monkeypatch.setattr("mover.target.tree.os.fsync", lambda _fd: answers.wait(30))
    tasks = [asyncio.create_task(target.put(f"{n}", b"x")) for n in range(20)]
    turns = 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0.005)
        turns += 1
    assert turns > 20
    assert all(isinstance(task.exception(), UnreachableError) for task in tasks)
    answers.set()
    await target.aclose()


HUNG = """
import asyncio, os
from mover.errors import UnreachableError
from mover.target import tree
from mover.target.files import FileTarget
import sys

end, _ = os.pipe()

async def main():
    target = FileTarget(sys.argv[1], "file:///hung", timeout=0.2)
    await target.open()
    tree.os.fsync = lambda _fd: os.read(end, 1)
    for n in range(3):
        try:
            await target.put(f"{n}", b"x")
        except UnreachableError:
            print("unreachable")
    await asyncio.wait_for(target.aclose(), 60)

asyncio.run(main())
print("ended")
"""


async def test_hung_calls_do_not_keep_the_program_from_ending(tmp_path):
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", HUNG, tmp_path], check=False, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "unreachable\n" * 3 + "ended\n", "")
