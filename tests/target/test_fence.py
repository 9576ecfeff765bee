"""What is written inside of a fence asks before each attempt, also when it is repeated or a thread was slow."""

import asyncio
import os
import threading

import pytest
from fault_proxy import FaultProxy

from mover.clock import SystemClock
from mover.errors import StateError
from mover.target.base import BytesPart
from mover.target.fence import fenced
from mover.target.s3 import S3Target
from mover.target.url import open_target, parse_url

MIB = 1 << 20


class Turnstile:
    """A check that fails once it was shut."""

    shut = False

    def __call__(self):
        if self.shut:
            raise StateError("the lease is lost")


@pytest.fixture
def turnstile():
    return Turnstile()


class ShutsAtRetry(SystemClock):
    """The first wait between two attempts lasts longer than the lease."""

    def __init__(self, turnstile):
        self.turnstile = turnstile

    async def sleep(self, seconds):
        self.turnstile.shut = True
        await asyncio.sleep(0)


@pytest.mark.parametrize("sender", ["fast", "aiobotocore"])
@pytest.mark.parametrize("work", ["put", "put-new", "complete", "delete", "delete-many"])
async def test_no_attempt_after_the_lease_was_lost(keys, base, turnstile, sender, work):
    async with FaultProxy(keys.endpoint) as proxy:
        url = keys.url(base, endpoint=proxy.endpoint, profile="seaweedfs", sender=sender)
        target = S3Target(parse_url(url), clock=ShutsAtRetry(turnstile))
        await target.open()
        await target.put("old", b"old")
        await target.put("older", b"old")
        changes = {"put": "PUT", "put-new": "PUT", "complete": "POST", "delete": "DELETE", "delete-many": "POST"}
        proxy.fault("slow-down", changes[work], "uploadId=" if work == "complete" else "")
        with fenced(turnstile), pytest.raises(StateError, match="lost"):
            if work == "put":
                await target.put("old", b"new")
            elif work == "put-new":
                await target.put("new", b"new", if_absent=True)
            elif work == "complete":
                writer = await target.create("new")
                for _ in range(2):
                    await writer.write(BytesPart(bytes(5 * MIB)))
                try:
                    await writer.commit()
                finally:
                    await writer.abort()
            elif work == "delete":
                await target.delete("old")
            else:
                await target.delete_many(["old", "older"])
        assert await target.get("old") == await target.get("older") == b"old"
        assert await target.stat("new") is None
        # Outside of it others go on.
        await target.put("new", b"new")
        await target.aclose()


async def test_a_thread_that_was_slow_publishes_nothing(tmp_path, turnstile, monkeypatch):
    target = await open_target(tmp_path.as_uri())
    await target.put("f", b"old")
    sync, entered, go_on = os.fsync, threading.Event(), threading.Event()

    def slow(fd):
        entered.set()
        assert go_on.wait(20)
        sync(fd)

    monkeypatch.setattr(os, "fsync", slow)

    async def put():
        with fenced(turnstile):
            await target.put("f", b"new")

    writing = asyncio.create_task(put())
    await asyncio.to_thread(entered.wait, 20)
    turnstile.shut = True
    go_on.set()
    with pytest.raises(StateError):
        await writing
    monkeypatch.undo()
    assert await target.get("f") == b"old"
    with fenced(turnstile):
        for change in (target.append("f", 3, b"more"), target.delete("f"), target.delete_many(["f"])):
            with pytest.raises(StateError):
                await change
    assert await target.get("f") == b"old"
    await target.aclose()


async def test_fences_add_up_and_hold_in_tasks_that_are_begun_inside(tmp_path):
    outer, inner = Turnstile(), Turnstile()
    target = await open_target(tmp_path.as_uri())
    with fenced(outer):
        with fenced(inner):
            await asyncio.create_task(target.put("f", b"1"))
            outer.shut = True
            with pytest.raises(StateError):
                await asyncio.create_task(target.put("f", b"2"))
        outer.shut, inner.shut = False, True
        await target.put("f", b"3")
    assert await target.get("f") == b"3"
    await target.aclose()
