"""Doctor: try what a backup will do, at the source and at the destination, and say what will not work and why."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from mover.config import Settings
from mover.encryption.cipher import CIPHER
from mover.errors import MoverError
from mover.rootservice.doctor_checks import Check, Examination, State, failed, one
from mover.rootservice.doctor_cluster import ClusterExam
from mover.rootservice.doctor_destination import clean, probe_destination, probe_directory
from mover.rootservice.doctor_keys import probe_keys
from mover.rootservice.doctor_source import SourceExam
from mover.rootservice.session import open_catalog, open_cluster, open_store
from mover.store.base import Store
from mover.store.cluster import Cluster
from mover.target.base import Target
from mover.target.profiles import Profile
from mover.target.url import FileDestination, open_target, parse_url

PROBE = ".mover-doctor"


class Exam(Protocol):
    """The checks of a source, alone and against a destination."""

    def checks(self) -> AsyncIterator[Check]: ...

    def against(self, target: Target, settings: Settings) -> AsyncIterator[Check]: ...


async def examine(settings: Settings, *, seconds: float = 2.0, on_check: Callable[[Check], None]) -> Examination:
    """Examine what ``settings`` name: the source, the destination, or both and what they are to each other.

    Args:
        seconds: how long the throughput of the destination is measured; 0 leaves it out.
        on_check: told each check as it ends.

    Never raises for what it examines: that is what the checks say.
    """
    checks: list[Check] = []
    profile: Profile | None = None

    async def note(found: AsyncIterator[Check]) -> None:
        async for check in found:
            checks.append(check)
            on_check(check)

    opened: Store | Cluster | None = None
    target = source = None
    try:
        if settings.source is not None:
            try:
                opened, source = _open_source(settings, settings.source)
            except MoverError as error:
                await note(one(failed("source", "open", error)))
            else:
                await note(source.checks())
        if settings.dest is not None:
            try:
                target = await open_target(
                    settings.dest,
                    create=False,
                    concurrency=settings.concurrency,
                    objects=settings.objects,
                    file_timeout=settings.file_timeout,
                )
            except MoverError as error:
                await note(_unreachable(settings.dest, error))
            else:
                profile = await _destination(target, settings.dest, seconds, note)
        if target is not None and settings.encrypt == CIPHER:
            await note(one(await probe_keys(target, settings)))
        if source is not None and target is not None:
            await note(_catalog(settings))
            await note(source.against(target, settings))
    finally:
        if target is not None:
            await target.aclose()
        if opened is not None:
            await opened.aclose()
    return Examination(tuple(checks), profile)


def _open_source(settings: Settings, url: str) -> tuple[Store | Cluster, Exam]:
    cluster = open_cluster(settings, url)
    if cluster is not None:
        return cluster, ClusterExam(cluster, settings)
    store = open_store(settings, url)
    return store, SourceExam(store, settings)


async def _destination(
    target: Target, dest: str, seconds: float, note: Callable[[AsyncIterator[Check]], Awaitable[None]]
) -> Profile | None:
    await note(one(Check("destination", "reach", State.OK, target.url)))
    where = parse_url(dest)
    base = f"{PROBE}/{os.urandom(8).hex()}"
    try:
        if isinstance(where, FileDestination):
            for check in await probe_directory(where.path):
                await note(one(check))
            await note(probe_destination(target, base, seconds))
            return None
        # Imported here: it brings botocore, which nobody with a directory should wait for.
        from mover.rootservice.doctor_objects import ObjectsExam
        from mover.target.s3 import S3Target

        assert isinstance(target, S3Target)
        exam = ObjectsExam(target.client, base)
        await note(exam.before())
        await note(probe_destination(target, base, seconds))
        await note(exam.checks())
        return exam.profile
    finally:
        await clean(target, base)


async def _catalog(settings: Settings) -> AsyncIterator[Check]:
    """Where jobs and leases are; opening it makes it, as every backup does."""
    try:
        async with open_catalog(settings) as catalog:
            yield Check("catalog", "reach", State.OK, f"{catalog.engine.dialect.name}, jobs and leases can be noted")
    except MoverError as error:
        yield failed("catalog", "reach", error)


async def _unreachable(dest: str, error: MoverError) -> AsyncIterator[Check]:
    """That nobody answers; for an object store also whether another way of addressing it would do."""
    yield failed("destination", "reach", error)
    try:
        where = parse_url(dest)
    except MoverError:
        return
    if not isinstance(where, FileDestination):
        from mover.rootservice.doctor_objects import other_addressing

        check = await other_addressing(where)
        if check is not None:
            yield check
