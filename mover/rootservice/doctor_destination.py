"""What doctor tries at any destination: the contract of :mod:`mover.target.base`, as a backup uses it.

Everything it writes goes below a directory of its own at the destination, and is removed again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from mover.datapath.buffers import BufferPool
from mover.errors import MoverError, TargetError, TargetExists, TargetNotFound
from mover.rootservice.doctor_checks import LITTLE_ROOM, SKEW_FAILS, SKEW_WARNS, Check, State, failed, size_text
from mover.target.base import BytesPart, Target
from mover.target.mount_options import mount_of, on_the_root, parse_mountinfo, risks

_PART = 8 << 20
_PARTS = 6  # under way while throughput is measured


async def probe_destination(target: Target, base: str, seconds: float) -> AsyncIterator[Check]:
    """The checks, in order. A destination that can not even be written to has one.

    Args:
        base: the prefix for what is written; the caller removes it (:func:`clean`).
        seconds: how long throughput is measured; 0 leaves it out.
    """
    for name, probe in _PROBES:
        try:
            yield await probe(target, f"{base}/{name}")
        except MoverError as error:
            yield failed("destination", name, error)
            if name == "write":
                return  # nothing else could work
    if seconds > 0:
        try:
            yield await _throughput(target, f"{base}/throughput", seconds)
        except MoverError as error:
            yield failed("destination", "throughput", error)


async def probe_directory(path: str) -> list[Check]:
    """Room and mount of a directory."""
    return await asyncio.to_thread(_directory, path)


def _directory(path: str) -> list[Check]:
    found = []
    room = os.statvfs(path)
    free = room.f_bavail * room.f_frsize
    state = State.OK if free >= LITTLE_ROOM else State.WARN
    advice = None if state == State.OK else "make room: a backup needs about what the store uses"
    found.append(Check("destination", "room", state, f"{size_text(free)} free", advice))
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="replace") as lines:
        mount = mount_of(os.path.realpath(path), parse_mountinfo(lines))
    if mount is not None:
        detail = f"{mount.kind} on {mount.point}" + (f" from {mount.source}" if mount.remote else "")
        wrong = risks(mount)
        said = [f"{option}: {why}" for option, why in wrong]
        # A hint only: who tries mover out has no other place.
        advice = "; ".join([*said, *filter(None, [on_the_root(mount)])]) or None
        found.append(Check("destination", "mount", State.WARN if wrong else State.OK, detail, advice))
    return found


async def _write(target: Target, path: str) -> Check:
    began = time.time()
    info = await target.put(path, b"mover")
    if await target.get(path) != b"mover":
        raise TargetError("what was written did not come back", hint="do not use this destination")
    skew = info.modified_us / 1e6 - (began + time.time()) / 2
    detail = f"a small file, read back; its clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) < SKEW_WARNS:
        return Check("destination", "write", State.OK, "a small file, read back; the clocks agree")
    state = State.FAIL if abs(skew) > SKEW_FAILS else State.WARN
    return Check("destination", "write", state, detail, "set this host's clock, or the destination's: use NTP")


async def _list(target: Target, path: str) -> Check:
    await target.put(path, b"")
    found = [info.path async for info in target.list(path)]
    if found != [path]:
        advice = "this store lists late: a validate may miss files, and mover's listings can not be relied upon"
        return Check("destination", "list", State.FAIL, "a file that was just written is not listed", advice)
    return Check("destination", "list", State.OK, "what was just written is listed")


async def _exclusive(target: Target, path: str) -> Check:
    await target.put(path, b"first", if_absent=True)
    try:
        await target.put(path, b"second", if_absent=True)
    except TargetExists:
        if target.capabilities.conditional_put:
            return Check("destination", "exclusive", State.OK, "a name is written once, decided by the destination")
        advice = "two archivers could take the same name in one instant: run one per destination"
        return Check("destination", "exclusive", State.WARN, "a name is looked at before it is written", advice)
    return Check("destination", "exclusive", State.FAIL, "a name that was taken was written again", "do not use it")


async def _large(target: Target, path: str) -> Check:
    size = max(_PART, target.capabilities.min_part)
    content = os.urandom(1 << 16) * (size >> 16)
    writer = await target.create(path)
    try:
        for part in (content, content, b"end"):
            await writer.write(BytesPart(part))
        info = await writer.commit()
    except BaseException:
        await writer.abort()
        raise
    buffer = memoryview(bytearray(1 << 16))
    await target.read_into(path, size + 4096, buffer)
    if info.size != 2 * size + 3 or bytes(buffer) != (content + content)[4096 : 4096 + len(buffer)]:
        raise TargetError("a file in three parts did not come back as it was written", hint="do not use it")
    return Check("destination", "large", State.OK, f"a file in three parts, {size_text(info.size)}, and a range of it")


async def _unfinished(target: Target, path: str) -> Check:
    writer = await target.create(path)
    size = max(_PART, target.capabilities.min_part)
    await writer.write(BytesPart(bytes(size)))
    await writer.write(BytesPart(bytes(size)))
    await writer.abort()
    left = [found async for found in target.leftovers(path)]
    if left or await target.stat(path) is not None:
        advice = "give the key the right to abort uploads and list them; `mover sweep` needs it too"
        return Check("destination", "unfinished", State.WARN, "a write that was given up has left something", advice)
    return Check("destination", "unfinished", State.OK, "a write that is given up leaves nothing")


async def _delete(target: Target, path: str) -> Check:
    await target.put(path, b"x")
    await target.delete(path)
    try:
        await target.get(path)
    except TargetNotFound:
        return Check("destination", "delete", State.OK, "a deleted file is gone")
    return Check(
        "destination", "delete", State.WARN, "a deleted file can still be read", "retention will not free room"
    )


_PROBES: tuple[tuple[str, Callable[[Target, str], Awaitable[Check]]], ...] = (
    ("write", _write),
    ("list", _list),
    ("exclusive", _exclusive),
    ("large", _large),
    ("unfinished", _unfinished),
    ("delete", _delete),
)


async def _throughput(target: Target, path: str, seconds: float) -> Check:
    size = max(_PART, target.capabilities.min_part)
    pool = BufferPool(_PARTS, size)
    for part in (parts := await pool.take(_PARTS)):
        part.buffer[:] = os.urandom(1 << 20) * (size >> 20)
        part.release()
    del parts
    began, sent = time.monotonic(), 0
    writer = await target.create(path)
    try:
        while time.monotonic() - began < seconds:
            part = await pool.acquire()
            part.filled = size
            await writer.write(part)
            sent += size
        await writer.commit()
    except BaseException:
        await writer.abort()
        raise
    rate = sent / (time.monotonic() - began)
    return Check("destination", "throughput", State.OK, f"{rate / 1e6:.0f} MB/s, durable, one file")


async def clean(target: Target, base: str) -> None:
    """Remove what was written below ``base``."""
    try:
        for path in [info.path async for info in target.list(f"{base}/")]:
            await target.delete(path)
    except MoverError:
        return  # the check that failed has said it
