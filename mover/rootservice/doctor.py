"""Doctor: try what a backup will do, at the source and at the destination, and say what will not work and why.

Everything it writes goes below a directory of its own at the destination, and is removed again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mover.config import Settings
from mover.datapath.buffers import BufferPool
from mover.errors import MoverError, TargetError, TargetExists, TargetNotFound
from mover.media.archive_info import ArchiveStatus, current_round
from mover.media.layout import Layout
from mover.repository.archive_state import load_record, load_rounds
from mover.repository.tree import Repository
from mover.rootservice.session import open_store
from mover.store.base import LogSource, Store
from mover.target.base import BytesPart, Target
from mover.target.mount_options import mount_of, parse_mountinfo, risks
from mover.target.url import FileDestination, open_target, parse_url

PROBE = ".mover-doctor"
_PART = 8 << 20
_PARTS = 6  # under way while throughput is measured
_SKEW_WARNS = 5.0  # seconds; object stores refuse signatures that are 15 minutes off
_SKEW_FAILS = 600.0
_LITTLE_ROOM = 1 << 30


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"  # it will work, but not as well as it should
    FAIL = "fail"  # a backup would be refused, or could not be relied upon


@dataclass(frozen=True, slots=True)
class Check:
    """Something that was tried."""

    subject: str  # "source" or "destination"
    name: str
    state: State
    detail: str
    advice: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "check": self.name,
            "state": str(self.state),
            "detail": self.detail,
            "advice": self.advice,
        }


@dataclass(frozen=True, slots=True)
class Examination:
    """Every check, in order."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """False when a backup would be refused."""
        return all(check.state != State.FAIL for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "checks": [check.as_json() for check in self.checks]}


async def examine(settings: Settings, *, seconds: float = 2.0, on_check: Callable[[Check], None]) -> Examination:
    """Examine what ``settings`` name: the source, the destination, or both and what they are to each other.

    Args:
        seconds: how long the throughput of the destination is measured; 0 leaves it out.
        on_check: told each check as it ends.

    Never raises for what it examines: that is what the checks say.
    """
    checks: list[Check] = []

    async def note(found: AsyncIterator[Check]) -> None:
        async for check in found:
            checks.append(check)
            on_check(check)

    store = target = None
    try:
        if settings.source is not None:
            try:
                store = open_store(settings, settings.source)
            except MoverError as error:
                await note(_one(_failed("source", "open", error)))
            else:
                await note(_source(store))
        if settings.dest is not None:
            try:
                target = await open_target(
                    settings.dest, create=False, concurrency=settings.concurrency, objects=settings.objects
                )
            except MoverError as error:
                await note(_one(_failed("destination", "reach", error)))
            else:
                await note(_destination(target, settings.dest, seconds))
        if store is not None and target is not None:
            await note(_together(store, target, settings))
    finally:
        if target is not None:
            await target.aclose()
        if store is not None:
            await store.aclose()
    return Examination(tuple(checks))


async def _source(store: Store) -> AsyncIterator[Check]:
    try:
        identity = await store.identity()
    except MoverError as error:
        yield _failed("source", "reach", error)
        return
    yield Check("source", "reach", State.OK, f"{identity.kind} {identity.version}, tenant {identity.tenant_name!r}")
    try:
        log = await store.log("doctor")
    except MoverError as error:
        yield _failed("source", "log", error)
        return
    try:
        begin, (end, _) = await log.begin_lsn(), await log.end()
        yield Check("source", "log", State.OK, f"readable from LSN {begin} to {end}, {_mib(end - begin)} kept")
    except MoverError as error:
        yield _failed("source", "log", error)
    finally:
        await log.aclose(keep_hold=False)


async def _destination(target: Target, dest: str, seconds: float) -> AsyncIterator[Check]:
    yield Check("destination", "reach", State.OK, target.url)
    where = parse_url(dest)
    if isinstance(where, FileDestination):
        for check in await asyncio.to_thread(_directory, where.path):
            yield check
    base = f"{PROBE}/{os.urandom(8).hex()}"
    try:
        for name, probe in _PROBES:
            try:
                yield await probe(target, f"{base}/{name.replace(' ', '-')}")
            except MoverError as error:
                yield _failed("destination", name, error)
                if name == "write":
                    return  # nothing else could work
        if seconds > 0:
            try:
                yield await _throughput(target, f"{base}/throughput", seconds)
            except MoverError as error:
                yield _failed("destination", "throughput", error)
    finally:
        await _clean(target, base)


def _directory(path: str) -> list[Check]:
    found = []
    room = os.statvfs(path)
    free = room.f_bavail * room.f_frsize
    state = State.OK if free >= _LITTLE_ROOM else State.WARN
    advice = None if state == State.OK else "make room: a backup needs about what the store uses"
    found.append(Check("destination", "room", state, f"{_mib(free)} free", advice))
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="replace") as lines:
        mount = mount_of(os.path.realpath(path), parse_mountinfo(lines))
    if mount is not None:
        detail = f"{mount.kind} on {mount.point}" + (f" from {mount.source}" if mount.remote else "")
        wrong = risks(mount)
        advice = "; ".join(f"{option}: {why}" for option, why in wrong) or None
        found.append(Check("destination", "mount", State.WARN if wrong else State.OK, detail, advice))
    return found


async def _write(target: Target, path: str) -> Check:
    began = time.time()
    info = await target.put(path, b"mover")
    if await target.get(path) != b"mover":
        raise TargetError("what was written did not come back", hint="do not use this destination")
    skew = info.modified_us / 1e6 - (began + time.time()) / 2
    detail = f"a small file, read back; its clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) < _SKEW_WARNS:
        return Check("destination", "write", State.OK, "a small file, read back; the clocks agree")
    state = State.FAIL if abs(skew) > _SKEW_FAILS else State.WARN
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
    return Check("destination", "large", State.OK, f"a file in three parts, {_mib(info.size)}, and a range of it")


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


async def _together(store: Store, target: Target, settings: Settings) -> AsyncIterator[Check]:
    """Is there a round to back up into, and is its archiver fast enough for what the engine keeps?"""
    try:
        identity = await store.identity()
        repository = Repository(target, Layout(settings.cluster_name, settings.cluster_id), identity.tenant_id)
        current = current_round(await load_rounds(repository))
        record = await load_record(repository, current.round_id) if current else None
        if current is None or current.status != ArchiveStatus.DOING or record is None:
            advice = "`mover archivelog start`, and keep `mover archivelog run` going: a backup is refused without"
            yield Check("destination", "archive", State.FAIL, "no archive round is DOING (-9040)", advice)
            return
        log = await store.log("doctor")
        try:
            yield await _retention(log, record.checkpoint_lsn)
        finally:
            await log.aclose(keep_hold=False)
    except MoverError as error:
        yield _failed("destination", "archive", error)


async def _retention(log: LogSource, checkpoint: int) -> Check:
    begin, (end, _) = await log.begin_lsn(), await log.end()
    behind, kept = end - checkpoint, end - begin
    detail = f"{_mib(behind)} behind, of {_mib(kept)} that the engine keeps"
    if checkpoint < begin:
        advice = "log was recycled before it was archived: begin a new round, take a full, and archive without a pause"
        return Check("destination", "archive", State.FAIL, f"log from LSN {checkpoint} to {begin} is gone", advice)
    if behind > kept // 2:
        advice = "run `mover archivelog run` without a pause, or give the engine a larger log_disk_size"
        return Check("destination", "archive", State.WARN, detail, advice)
    return Check("destination", "archive", State.OK, detail)


async def _clean(target: Target, base: str) -> None:
    try:
        for path in [info.path async for info in target.list(f"{base}/")]:
            await target.delete(path)
    except MoverError:
        return  # the check that failed has said it


async def _one(check: Check) -> AsyncIterator[Check]:
    yield check


def _failed(subject: str, name: str, error: MoverError) -> Check:
    return Check(subject, name, State.FAIL, error.message, error.hint)


def _mib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"
