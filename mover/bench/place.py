"""Where the sides of a benchmark work: a destination that is as it was after each run, and data in memory."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mover.bench.compare import Goal, Side
from mover.bench.measure import Sample, Stage, run_pipe
from mover.bench.peers import Peers, Upload
from mover.errors import ConfigError, MoverError
from mover.target.url import FileDestination, open_target, parse_url

_MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it

FileEntry = tuple[str, Goal | None, Callable[[Path], list[Stage] | None]]
ObjectEntry = tuple[str, Goal | None, Callable[[Upload], list[Stage] | None]]


@dataclass(frozen=True, slots=True)
class Options:
    """How a benchmark is run. Sizes in bytes."""

    size: int
    pairs: int
    warm_up: int
    memory: int
    workers: int
    concurrency: int
    part_size: int
    scratch: Path | None  # None: memory, when there is room for it
    dest: str | None = None  # a URL; may hold keys
    called: str | None = None  # what the destination is called in the rows; one with a name of its own has no goals
    kinds: Sequence[str] = ()
    seconds: float = 0.5  # of one run of a kernel loop, or of an archive
    rates: Sequence[float] = (20, 60, 100)  # MB of redo per second
    flush_interval: float = 0.5  # seconds
    compression: str = "auto"
    chosen: Mapping[str, str] = field(
        default_factory=dict
    )  # MOVER_* variables of what the user set, for whole commands


class Place:
    """A destination: where each run writes, and how what it wrote goes away again."""

    def __init__(self, options: Options, peers: Peers) -> None:
        if options.dest is None:
            raise ConfigError("no dest is given", hint="Say --dest URL, or set MOVER_DEST.")
        self.options = options
        self.peers = peers
        self.url = options.dest
        self._run = f"mover-bench-{secrets.token_hex(4)}"
        self._count = 0
        parsed = parse_url(options.dest)
        self.directory = Path(parsed.path) / self._run if isinstance(parsed, FileDestination) else None
        self.name = options.called or ("file" if self.directory else "S3")

    def ours(self, name: str, job: dict[str, Any], scratch: Path) -> Side:
        """mover doing ``job`` at this destination."""

        def run() -> Sample:
            with self.fresh(scratch) as url:
                return run_worker(scratch, self._job(job), {}, url)

        return Side(name, run)

    def close(self) -> None:
        """Remove what is left of the run; a file destination keeps nothing but itself."""
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _job(self, job: dict[str, Any]) -> dict[str, Any]:
        options = self.options
        return job | {
            "memory": options.memory,
            "workers": options.workers,
            "concurrency": options.concurrency,
            "part_size": options.part_size,
        }

    @contextmanager
    def fresh(self, scratch: Path) -> Iterator[str]:
        """A prefix that nobody used, emptied behind its user. Not measured."""
        self._count += 1
        head, mark, query = self.url.partition("?")
        url = f"{head.rstrip('/')}/{self._run}/{self._count}{mark}{query}"
        try:
            if self.directory is not None:
                (self.directory / str(self._count)).mkdir(parents=True)
            yield url
        finally:
            if self.directory is not None:
                shutil.rmtree(self.directory / str(self._count), ignore_errors=True)
            else:
                run_worker(scratch, self._job({"do": "clean"}), {}, url)

    def paths(self, size: int, scratch: Path, entries: Sequence[FileEntry]) -> list[Side]:
        """Peers that write a path."""

        def side(name: str, goal: Goal | None, make: Callable[[Path], list[Stage] | None]) -> Side:
            def run() -> Sample:
                assert self.directory is not None
                with self.fresh(scratch):
                    to = self.directory / str(self._count) / "file"
                    return run_pipe(make(to) or [], bytes_in=size)

            return Side(name, run, goal)

        return [side(name, goal, make) for name, goal, make in entries if make(scratch / "unused")]

    def objects(
        self,
        source: Path,
        size: int,
        scratch: Path,
        entries: Sequence[ObjectEntry],
    ) -> list[Side]:
        """Peers that write an object."""

        def side(name: str, goal: Goal | None, make: Callable[[Upload], list[Stage] | None]) -> Side:
            def run() -> Sample:
                with self.fresh(scratch) as url:
                    return run_pipe(
                        make(self.upload(url, source, scratch)) or [], bytes_in=size, report=scratch / "report"
                    )

            return Side(name, run, goal)

        return [side(name, goal, make) for name, goal, make in entries if make(self.upload(self.url, source, scratch))]

    def upload(self, url: str, source: Path, scratch: Path) -> Upload:
        """What a peer has to know to send ``source`` to a bucket."""
        destination = parse_url(url)
        assert not isinstance(destination, FileDestination)
        options = self.options
        return Upload(source, destination, "file", options.part_size, options.concurrency, report_path(scratch))


@contextmanager
def open_place(options: Options, peers: Peers) -> Iterator[Place]:
    place = Place(options, peers)
    asyncio.run(_reach(place.url))
    try:
        yield place
    finally:
        place.close()


async def _reach(url: str) -> None:
    """Prove that the destination is there, before time goes into data for it. Raises what ``open_target`` does."""
    target = await open_target(url, create=False)
    await target.aclose()


def run_worker(scratch: Path, job: dict[str, Any], environment: dict[str, str], dest: str | None = None) -> Sample:
    report = report_path(scratch)
    argv = [sys.executable, "-m", "mover.bench.worker", str(report), json.dumps(job)]
    hidden = {"MOVER_BENCH_DEST": dest} if dest is not None else {}
    return run_pipe([Stage(argv, environment, hidden)], bytes_in=1, report=report)


def report_path(scratch: Path) -> Path:
    """Where a process reports; an older report is gone."""
    path = scratch / "report"
    path.unlink(missing_ok=True)
    return path


@contextmanager
def scratch_directory(options: Options, size: int) -> Iterator[Path]:
    """A directory for the data that goes in: in memory, so that the disk below does not decide, when it fits twice."""
    base = options.scratch
    if base is None and _MEMORY_DISK.is_dir() and os.access(_MEMORY_DISK, os.W_OK):
        room = os.statvfs(_MEMORY_DISK)
        base = _MEMORY_DISK if room.f_bavail * room.f_frsize > 2 * size else None
    try:
        directory = Path(tempfile.mkdtemp(prefix="mover-bench-", dir=base))
    except OSError as error:
        raise MoverError(f"can not make a scratch directory in {base}: {error.strerror}") from error
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
