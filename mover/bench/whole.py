"""``mover bench restore``, ``peers`` and ``start``: whole commands of mover, as a user runs them, and whole tools."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mover.bench.compare import Goal, Say, Side, Work, alone, compare
from mover.bench.image import StoreImage
from mover.bench.measure import Sample, Stage, run_pipe
from mover.bench.peers import Peers
from mover.bench.place import FileEntry, ObjectEntry, Options, Place, open_place, run_worker, scratch_directory
from mover.kernel.macroblock import MACROBLOCK_BYTES
from mover.target.url import FileDestination, parse_url

_RESTORE, _VALIDATE = Goal(rate=0.8), Goal(rate=0.8)
_INCREMENTAL = Goal(time=0.05, read=0.03)
_CHANGED = 100  # one of so many blocks
_BORG, _RESTIC = Goal(rate=3.0), Goal(rate=4.0)
_STARTS = (("mover --version", ("--version",), 0.25), ("mover show sets", ("show", "sets"), 0.6))
_Repository = Callable[[Path, Path], tuple[Stage, Stage] | None]


class _Tool:
    """Commands of mover on one store and one destination, with a state directory of its own."""

    def __init__(self, options: Options, image: StoreImage, scratch: Path, url: str, compression: str = "auto") -> None:
        self._image = image
        self._scratch = scratch
        self._url = url
        self._state = Path(tempfile.mkdtemp(prefix="state-", dir=scratch))
        self.environment = {
            "MOVER_CONFIG": os.devnull,
            "MOVER_SOURCE": image.url,
            "MOVER_OFFLINE": "true",
            "MOVER_STATE_DIR": str(self._state),
            "MOVER_COMPRESSION": compression,
            **options.chosen,
        }

    def __call__(self, *arguments: str, size: int | None = None) -> Sample:
        """Run one; ``size`` bytes are what it handles, all blocks unless it is said."""
        job = {
            "do": "command",
            "arguments": [*arguments, "--quiet", "--json"],
            "output": str(self._state / "output"),
            "bytes_in": size or self._image.size,
        }
        return run_worker(self._scratch, job, self.environment, self._url)

    def begin(self) -> None:
        """A round with the log of the store in it: without one there is no backup."""
        self("archivelog", "start")
        self("archivelog", "run", "--until-caught-up")


def restore_rows(options: Options, peers: Peers, say: Say) -> list[dict[str, Any]]:
    """Restore and validate one full set, then incrementals of a store in which one block of a hundred has changed.

    The files of the set are dropped from the page cache before each run of either side.
    """
    count = max(1, options.size // MACROBLOCK_BYTES)
    rows: list[dict[str, Any]] = []
    with open_place(options, peers) as place, scratch_directory(options, 2 * options.size) as directory:
        image = StoreImage(directory / "store", options.kinds[0] if options.kinds else "engine", count)
        with place.fresh(directory) as url, _disk(place) as disk:
            tool = _Tool(options, image, directory, url)
            tool.begin()
            tool("backup", "full")
            files = _files_of_sets(url)
            for what in (_restore(place, tool, image, files, disk, url, directory), _validate(place, tool, files)):
                rows += compare(what, pairs=options.pairs, warm_up=options.warm_up, say=say)
            what = _incremental(place, tool, image)
            rows += compare(what, pairs=options.pairs, warm_up=options.warm_up, say=say)
    return rows


def _restore(
    place: Place, tool: _Tool, image: StoreImage, files: Sequence[Path], disk: Path, url: str, scratch: Path
) -> Work:
    to = disk / "restored"

    def clean(run: Callable[[], Sample]) -> Callable[[], Sample]:
        def cleanly() -> Sample:
            _evict(files)
            try:
                return run()
            finally:
                shutil.rmtree(to, ignore_errors=True)

        return cleanly

    ours = Side("mover restore", clean(lambda: tool("restore", "--target", str(to))))
    name: str = "dd iflag=direct oflag=direct, fsync"
    goal: Goal | None = _RESTORE
    stages = place.peers.dd_each([path for path in files if "macro_block_" in path.name], to)
    if place.directory is None:
        name, goal = "s5cmd cp, cached", None
        stages = place.peers.s5cmd_fetch(place.upload(url, scratch, scratch), to)
    peers = [Side(name, clean(lambda: run_pipe(stages, bytes_in=image.size)), goal)] if stages else []
    return Work(f"restore of a full set from {place.name}", ours, peers)


def _validate(place: Place, tool: _Tool, files: Sequence[Path]) -> Work:
    size = sum(path.stat().st_size for path in files) or None

    def cold(run: Callable[[], Sample]) -> Callable[[], Sample]:
        def coldly() -> Sample:
            _evict(files)
            return run()

        return coldly

    ours = Side("mover validate", cold(lambda: tool("validate", "--set", "1", size=size)))
    stages = place.peers.xxhsum(files)
    peers = [Side("xxhsum -H2", cold(lambda: run_pipe(stages, bytes_in=size or 0)), _VALIDATE)] if stages else []
    return Work(f"validate of a full set at {place.name}", ours, peers)


def _incremental(place: Place, tool: _Tool, image: StoreImage) -> Work:
    """Without start-up: the question is how the work shrinks, and starting is measured by itself."""

    def changed() -> Sample:
        image.change(_CHANGED)
        return tool("backup", "incremental")

    full = Side("mover backup full", lambda: tool("backup", "full"), _INCREMENTAL if not place.options.called else None)
    name = f"incremental, 1 of {_CHANGED} blocks changed, to {place.name}"
    return Work(name, Side("mover backup incremental", changed), [full], steady=True)


def peers_rows(options: Options, peers: Peers, say: Say) -> list[dict[str, Any]]:
    """A full backup by the command line, beside tools that copy the same block file or put it into a repository."""
    count = max(1, options.size // MACROBLOCK_BYTES)
    rows: list[dict[str, Any]] = []
    with open_place(options, peers) as place:
        for kind, compression in (("engine", "auto"), ("rows", "zstd:3")):
            if options.kinds and kind not in options.kinds:
                continue
            with scratch_directory(options, 2 * options.size) as directory:
                image = StoreImage(directory / "store", kind, count)
                source = image.paths.block_file
                others = [
                    *_carriers(place, source, image.size, directory, kind),
                    *_repositories(place, source, image.size, directory, kind),
                ]
                ours = Side("mover backup full", _full_backup(place, image, directory, compression))
                name = f"whole tools: {kind} blocks, {compression}, to {place.name}"
                rows += compare(Work(name, ours, others), pairs=options.pairs, warm_up=options.warm_up, say=say)
    return rows


def _full_backup(place: Place, image: StoreImage, scratch: Path, compression: str) -> Callable[[], Sample]:
    def run() -> Sample:
        with place.fresh(scratch) as url:
            tool = _Tool(place.options, image, scratch, url, compression)
            tool.begin()
            return tool("backup", "full")

    return run


def _carriers(place: Place, source: Path, size: int, scratch: Path, kind: str) -> list[Side]:
    """Tools that copy; those that compress where mover does."""
    peers = place.peers
    if place.directory is not None:
        paths: list[FileEntry] = [
            ("dd oflag=direct, fsync", None, lambda to: peers.dd(source, to, direct=True)),
            ("cp, fsync", None, lambda to: peers.cp(source, to)),
            ("rclone copyto, fsync", None, lambda to: peers.rclone(source, to)),
        ]
        if kind == "rows":
            paths = [("zstd -3 -T2 | dd oflag=direct, fsync", None, lambda to: peers.zstd_dd(source, to, 3))]
        return place.paths(size, scratch, paths)
    objects: list[ObjectEntry] = [
        ("s5cmd cp", None, peers.s5cmd),
        ("obstore, unsigned", None, peers.obstore_put),
        ("rclone copyto", None, peers.rclone_s3),
    ]
    if kind == "rows":
        objects = [("zstd -3 -T2 | s5cmd pipe", None, lambda upload: peers.zstd_s5cmd(upload, 3))]
    return place.objects(source, size, scratch, objects)


def _repositories(place: Place, source: Path, size: int, scratch: Path, kind: str) -> list[Side]:
    """Backup tools, into a repository on the same disk; beside a bucket in memory, which is quicker than any bucket.

    Beside a bucket for rows only: they compress whatever they are given, so that is where the work is the same.
    """
    if kind != "rows" and place.directory is None:
        return []
    goals = kind == "rows" and place.directory is None and place.options.called is None
    where = "" if place.directory is not None else ", repository in memory"
    made: list[tuple[str, _Repository, Goal]] = [
        (f"borg create zstd,3{where}", place.peers.borg, _BORG),
        (f"restic backup{where}", place.peers.restic, _RESTIC),
    ]

    def side(name: str, make: _Repository, goal: Goal) -> Side:
        def run() -> Sample:
            base = place.directory or scratch
            base.mkdir(exist_ok=True)
            own = Path(tempfile.mkdtemp(prefix="repository-", dir=base))
            try:
                stages = make(source, own / "repository")
                assert stages is not None
                begin, create = stages
                run_pipe([begin], bytes_in=1)
                return run_pipe([create], bytes_in=size)
            finally:
                shutil.rmtree(own, ignore_errors=True)

        return Side(name, run, goal if goals else None)

    return [side(name, make, goal) for name, make, goal in made if make(source, scratch)]


def start_rows(options: Options, peers: Peers, say: Say) -> list[dict[str, Any]]:
    """How long a command takes that has next to nothing to do."""
    del peers
    rows = []
    with scratch_directory(options, MACROBLOCK_BYTES) as directory:
        dest = directory / "dest"
        dest.mkdir()
        image = StoreImage(directory / "store", "incompressible", 1)
        tool = _Tool(options, image, directory, f"file://{dest}")
        tool.begin()
        tool("backup", "full")
        environment = tool.environment | {"MOVER_DEST": f"file://{dest}"}
        for name, arguments, limit in _STARTS:
            stage = Stage([*_program(), *arguments], environment)
            samples = [run_pipe([stage], bytes_in=1) for _ in range(options.warm_up + options.pairs)]
            took = [sample.seconds for sample in samples[options.warm_up :]]
            median = statistics.median(took)
            say(f"{name}: {median:.3f} s")
            rows.append(
                alone(
                    f"start-up: {name}",
                    "mover",
                    samples[options.warm_up :],
                    f"{median:.3f} s ({min(took):.3f}-{max(took):.3f})",
                    target=f"< {limit:g} s",
                    met=median < limit,
                )
            )
    return rows


def _program() -> list[str]:
    """mover as a user starts it."""
    script = Path(sys.executable).with_name("mover")
    return [str(script)] if script.exists() else [sys.executable, "-m", "mover"]


def _files_of_sets(url: str) -> list[Path]:
    """The files of all sets at a directory; none at a bucket."""
    parsed = parse_url(url)
    if not isinstance(parsed, FileDestination):
        return []
    return sorted(path for path in Path(parsed.path).rglob("backup_set_*/**/*") if path.is_file())


def _evict(files: Sequence[Path]) -> None:
    """Drop files from the page cache: what was written before must be read from the disk by everybody."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


@contextmanager
def _disk(place: Place) -> Iterator[Path]:
    """Where a store is restored to: the disk of the destination, or for a bucket that of temporary files."""
    base = place.directory or place.options.scratch
    directory = Path(tempfile.mkdtemp(prefix="mover-bench-", dir=base))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
