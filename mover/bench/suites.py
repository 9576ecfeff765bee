"""What ``mover bench kernel``, ``target`` and ``pipeline`` compare with what, and what mover is to reach."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mover import kernel
from mover.bench.compare import Goal, Say, Side, Work, compare
from mover.bench.data import write_block_file
from mover.bench.measure import Sample, Stage, run_pipe
from mover.bench.peers import Peers, Upload
from mover.errors import ConfigError, MoverError
from mover.kernel.macroblock import MACROBLOCK_BYTES
from mover.target.url import FileDestination, open_target, parse_url

_MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
_LEVELS = (1, 3)
# Of the project's own targets; a row without one has no goal.
_ENGINE_S3 = {"s5cmd": Goal(rate=2.0, cost=0.35), "obstore": Goal(cost=1.6)}
_ROWS_S3 = {1: Goal(rate=2.3, cost=0.5), 3: Goal(rate=1.7)}
_ENGINE_FILE = {"direct": Goal(rate=0.85), "cached": Goal(rate=3.0)}


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
    kinds: Sequence[str] = ()
    seconds: float = 0.5  # of one run of a kernel loop


def kernel_rows(options: Options, peers: Peers, say: Say) -> list[dict[str, Any]]:
    """The kernel's calls, one thread: the extension against its pure twin, and the least that looking costs."""
    from mover.bench.kernel_loops import LOOPS, PEER_LOOPS, SOURCE_BLOCKS

    del peers  # everything here is Python of ours
    rows: list[dict[str, Any]] = []
    with _scratch(options, SOURCE_BLOCKS * MACROBLOCK_BYTES) as directory:
        source = directory / "blocks"
        write_block_file(source, "engine", SOURCE_BLOCKS)

        def side(name: str, loop: str, *, pure: bool = False, goal: Goal | None = None) -> Side:
            job = {"do": "repeat", "loop": loop, "source": str(source), "seconds": options.seconds}
            environment = {"MOVER_PURE": "1"} if pure else {}
            return Side(name, lambda: _work(directory, job, environment), goal)

        for loop in LOOPS:
            others = [side("pure Python twin", loop, pure=True)] if kernel.NATIVE else []
            if loop == "read, verify, digest":
                (plain,) = PEER_LOOPS
                others.append(side(plain, plain, goal=Goal(rate=0.7)))
            work = Work(f"kernel: {loop}", side("native" if kernel.NATIVE else "pure", loop), others, steady=True)
            rows += compare(work, pairs=options.pairs, warm_up=options.warm_up, say=say)
    return rows


def target_rows(options: Options, peers: Peers, say: Say) -> list[dict[str, Any]]:
    """One large file through the destination's writer, durable and confirmed at its end, and nothing else."""
    with _place(options, peers) as place, _scratch(options, options.size) as directory:
        source = directory / "blocks"
        size = write_block_file(source, "incompressible", _blocks(options.size))
        ours = place.ours("mover", {"do": "upload", "source": str(source)}, directory)
        work = Work(f"upload of one file to {place.name}", ours, place.raw(source, size, directory))
        return compare(work, pairs=options.pairs, warm_up=options.warm_up, say=say)


def pipeline_rows(options: Options, peers: Peers, say: Say) -> list[dict[str, Any]]:
    """Blocks of each kind through the pipeline of a backup: verified, digested, compressed or kept, framed, written."""
    rows: list[dict[str, Any]] = []
    with _place(options, peers) as place:
        for kind in options.kinds:
            with _scratch(options, options.size) as directory:
                source = directory / "blocks"
                size = write_block_file(source, kind, _blocks(options.size))
                for compression, others in place.rivals(kind, source, size, directory):
                    name = f"{kind} blocks, {compression}, to {place.name}"
                    job = {"do": "pack", "source": str(source), "compression": compression}
                    work = Work(name, place.ours("mover", job, directory), others)
                    rows += compare(work, pairs=options.pairs, warm_up=options.warm_up, say=say)
    return rows


SUITES: dict[str, Callable[[Options, Peers, Say], list[dict[str, Any]]]] = {
    "kernel": kernel_rows,
    "target": target_rows,
    "pipeline": pipeline_rows,
}


class _Place:
    """A destination: where each run writes, and how what it wrote goes away again."""

    def __init__(self, options: Options, peers: Peers) -> None:
        if options.dest is None:
            raise ConfigError("no dest is given", hint="Say --dest URL, or set MOVER_DEST.")
        self._options = options
        self._peers = peers
        self.url = options.dest
        self._run = f"mover-bench-{secrets.token_hex(4)}"
        self._count = 0
        parsed = parse_url(options.dest)
        self._directory = Path(parsed.path) / self._run if isinstance(parsed, FileDestination) else None
        self.name = "file" if self._directory else "S3"

    def ours(self, name: str, job: dict[str, Any], scratch: Path) -> Side:
        """mover doing ``job`` at this destination."""

        def run() -> Sample:
            with self._fresh(scratch) as url:
                return _work(scratch, self._job(job), {}, url)

        return Side(name, run)

    def raw(self, source: Path, size: int, scratch: Path) -> list[Side]:
        """The peers that only carry bytes."""
        if self._directory is not None:
            return self._sides(
                size,
                scratch,
                [
                    ("dd oflag=direct, fsync", None, lambda to: self._peers.dd(source, to, direct=True)),
                    ("dd, fsync", None, lambda to: self._peers.dd(source, to, direct=False)),
                    ("cp, fsync", None, lambda to: self._peers.cp(source, to)),
                ],
            )
        return self._objects(
            source,
            size,
            scratch,
            [
                ("s5cmd cp", None, self._peers.s5cmd),
                ("obstore, unsigned", None, self._peers.obstore_put),
                ("obstore, signed", None, lambda upload: self._peers.obstore_put(upload, signed=True)),
            ],
        )

    def rivals(self, kind: str, source: Path, size: int, scratch: Path) -> Iterator[tuple[str, list[Side]]]:
        """How mover stores this kind, and the peers with what is comparable to it."""
        goals = kind == "engine"
        if kind != "rows" and self._directory is not None:
            direct, cached = (_ENGINE_FILE["direct"], _ENGINE_FILE["cached"]) if goals else (None, None)
            yield (
                "auto",
                self._sides(
                    size,
                    scratch,
                    [
                        ("dd oflag=direct, fsync", direct, lambda to: self._peers.dd(source, to, direct=True)),
                        ("dd, fsync", cached, lambda to: self._peers.dd(source, to, direct=False)),
                    ],
                ),
            )
        elif kind != "rows":
            s5cmd, obstore = (_ENGINE_S3["s5cmd"], _ENGINE_S3["obstore"]) if goals else (None, None)
            entries = [("s5cmd cp", s5cmd, self._peers.s5cmd), ("obstore, unsigned", obstore, self._peers.obstore_put)]
            yield "auto", self._objects(source, size, scratch, entries)
        else:
            for level in _LEVELS:
                yield f"zstd:{level}", self._compressing(source, size, scratch, level)

    def _compressing(self, source: Path, size: int, scratch: Path, level: int) -> list[Side]:
        if self._directory is not None:
            name = f"zstd -{level} -T2 | dd oflag=direct, fsync"
            return self._sides(size, scratch, [(name, None, lambda to: self._peers.zstd_dd(source, to, level))])
        name = f"zstd -{level} -T2 | s5cmd pipe"
        entry = (name, _ROWS_S3[level], lambda upload: self._peers.zstd_s5cmd(upload, level))
        return self._objects(source, size, scratch, [entry])

    def close(self) -> None:
        """Remove what is left of the run; a file destination keeps nothing but itself."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _job(self, job: dict[str, Any]) -> dict[str, Any]:
        options = self._options
        return job | {
            "memory": options.memory,
            "workers": options.workers,
            "concurrency": options.concurrency,
            "part_size": options.part_size,
        }

    @contextmanager
    def _fresh(self, scratch: Path) -> Iterator[str]:
        """A prefix that nobody used, emptied behind its user. Not measured."""
        self._count += 1
        head, mark, query = self.url.partition("?")
        url = f"{head.rstrip('/')}/{self._run}/{self._count}{mark}{query}"
        try:
            if self._directory is not None:
                (self._directory / str(self._count)).mkdir(parents=True)
            yield url
        finally:
            if self._directory is not None:
                shutil.rmtree(self._directory / str(self._count), ignore_errors=True)
            else:
                _work(scratch, self._job({"do": "clean"}), {}, url)

    def _sides(
        self, size: int, scratch: Path, entries: Sequence[tuple[str, Goal | None, Callable[[Path], list[Stage] | None]]]
    ) -> list[Side]:
        """Peers that write a path."""

        def side(name: str, goal: Goal | None, make: Callable[[Path], list[Stage] | None]) -> Side:
            def run() -> Sample:
                assert self._directory is not None
                with self._fresh(scratch):
                    to = self._directory / str(self._count) / "file"
                    return run_pipe(make(to) or [], bytes_in=size)

            return Side(name, run, goal)

        return [side(name, goal, make) for name, goal, make in entries if make(scratch / "unused")]

    def _objects(
        self,
        source: Path,
        size: int,
        scratch: Path,
        entries: Sequence[tuple[str, Goal | None, Callable[[Upload], list[Stage] | None]]],
    ) -> list[Side]:
        """Peers that write an object."""

        def upload(url: str) -> Upload:
            destination = parse_url(url)
            assert not isinstance(destination, FileDestination)
            options = self._options
            return Upload(source, destination, "file", options.part_size, options.concurrency, _report(scratch))

        def side(name: str, goal: Goal | None, make: Callable[[Upload], list[Stage] | None]) -> Side:
            def run() -> Sample:
                with self._fresh(scratch) as url:
                    return run_pipe(make(upload(url)) or [], bytes_in=size, report=scratch / "report")

            return Side(name, run, goal)

        return [side(name, goal, make) for name, goal, make in entries if make(upload(self.url))]


@contextmanager
def _place(options: Options, peers: Peers) -> Iterator[_Place]:
    place = _Place(options, peers)
    asyncio.run(_reach(place.url))
    try:
        yield place
    finally:
        place.close()


async def _reach(url: str) -> None:
    """Prove that the destination is there, before time goes into data for it. Raises what ``open_target`` does."""
    target = await open_target(url, create=False)
    await target.aclose()


def _work(scratch: Path, job: dict[str, Any], environment: dict[str, str], dest: str | None = None) -> Sample:
    report = _report(scratch)
    argv = [sys.executable, "-m", "mover.bench.worker", str(report), json.dumps(job)]
    hidden = {"MOVER_BENCH_DEST": dest} if dest is not None else {}
    return run_pipe([Stage(argv, environment, hidden)], bytes_in=1, report=report)


def _report(scratch: Path) -> Path:
    """Where a process reports; an older report is gone."""
    path = scratch / "report"
    path.unlink(missing_ok=True)
    return path


def _blocks(size: int) -> int:
    return max(1, size // MACROBLOCK_BYTES)


@contextmanager
def _scratch(options: Options, size: int) -> Iterator[Path]:
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
