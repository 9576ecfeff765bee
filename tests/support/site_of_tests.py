"""An engine, a destination and the command line between them."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import engine_load
from mover_process import Background, Mover
from polling import until

from mover.media.layout import Layout
from mover.repository.tree import Repository
from mover.store.seekdb.server import SeekdbServer
from mover.target.url import open_target

Options = dict[str, Any]


@dataclass
class Booted:
    """A restored store that is running: what ``restore`` said, and how to reach it."""

    report: dict[str, Any]
    server: SeekdbServer

    @property
    def options(self) -> Options:
        return self.server.connection_options()

    async def query(self, sql: str) -> list[tuple[Any, ...]]:
        return await engine_load.query(self.options, sql)


@dataclass
class Site:
    """What the tests of one destination share.

    Args:
        kind: "file" or "s3".
        directory: everything local, removed by whoever made it.
        server: the engine that is backed up.
        mover: the command line with source and destination set.
        tree: the destination as a directory, for file destinations.
    """

    kind: str
    directory: Path
    server: SeekdbServer
    mover: Mover
    tree: Path | None = None
    archiver: Background | None = None
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def options(self) -> Options:
        return self.server.connection_options()

    async def query(self, sql: str) -> list[tuple[Any, ...]]:
        return await engine_load.query(self.options, sql)

    async def scn(self) -> int:
        return await engine_load.scn_now(self.options)

    # --- archive ----------------------------------------------------------------------------------------------------

    async def archive(self) -> Background:
        """`archivelog run` in the background; the one that runs already, if any."""
        if self.archiver is None or not self.archiver.running:
            self.archiver = await self.mover.start("archivelog", "run", "--progress-interval", "1s")
        return self.archiver

    async def stop_archiver(self) -> None:
        """SIGTERM; it must end as asked."""
        archiver, self.archiver = self.archiver, None
        if archiver is not None and archiver.running:
            ran = await archiver.terminate()
            assert ran.code == 143, str(ran)

    async def round(self) -> dict[str, Any]:
        """The current round as `archivelog status` shows it."""
        return (await self.mover.ok("archivelog", "status"))["rounds"][-1]

    async def archived(self, scn: int, seconds: float = 60) -> dict[str, Any]:
        """Until the checkpoint has passed ``scn``; the round then."""

        async def passed() -> dict[str, Any] | None:
            if self.archiver is not None and not self.archiver.running:
                raise AssertionError(f"the archiver is gone: {self.archiver.so_far()}")
            found = await self.round()
            return found if found["checkpoint_scn"] >= scn else None

        return await until(passed, f"the archive passes SCN {scn}", seconds)

    async def window(self) -> dict[str, Any]:
        """The newest recoverable window."""
        return (await self.mover.ok("show", "windows"))["windows"][-1]

    @asynccontextmanager
    async def repository(self) -> AsyncIterator[Repository]:
        """The destination from inside the tests: for looking at it more often than a process can be started."""
        dest = self.mover.settings["dest"]
        if keys := self.mover.environment:
            names = {"access_id": "AWS_ACCESS_KEY_ID", "access_key": "AWS_SECRET_ACCESS_KEY"}
            dest += "".join(f"&{option}={quote(keys[name], safe='')}" for option, name in names.items())
        target = await open_target(dest, create=False)
        try:
            yield Repository(target, Layout("seekdb", 1), 1)
        finally:
            await target.aclose()

    # --- restore ----------------------------------------------------------------------------------------------------

    def new_target(self) -> Path:
        """A directory that does not exist yet; short, because of the engine's socket in it."""
        return self.directory / f"r{next(self._numbers)}"

    @asynccontextmanager
    async def restored(self, *arguments: object, mover: Mover | None = None) -> AsyncIterator[Booted]:
        """Restore with these arguments, boot the result as it was told, remove it at the end."""
        target = self.new_target()
        try:
            report = await (mover or self.mover).ok("restore", "--target", target, *arguments)
            assert report["target"] == str(target)
            async with boot(report) as server:
                yield Booted(report, server)
        finally:
            shutil.rmtree(target, ignore_errors=True)


@asynccontextmanager
async def boot(report: dict[str, Any]) -> AsyncIterator[SeekdbServer]:
    """An engine on a restored store, with the parameters of the command that ``restore`` printed."""
    words = report["engine_command"]
    parameters = dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--parameter")
    assert parameters["log_disk_size"] == report["log_disk_size"]
    server = SeekdbServer(report["target"], parameters=parameters)
    try:
        await server.start(boot_seconds=120)
        yield server
    finally:
        await server.kill()
