"""What ``mover bench kernel``, ``target`` and ``pipeline`` compare with what, and what mover is to reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mover import kernel
from mover.bench.archive import archive_rows
from mover.bench.compare import Goal, Say, Side, Work, compare
from mover.bench.data import SEEKDB, write_block_file
from mover.bench.peers import Peers
from mover.bench.place import Options, Place, open_place, run_worker, scratch_directory
from mover.bench.whole import peers_rows, restore_rows, start_rows
from mover.kernel.macroblock import MACROBLOCK_BYTES

_LEVELS = (1, 3)
# Of the project's own targets; a row without one has no goal.
_ENGINE_S3 = {"s5cmd": Goal(rate=2.0, cost=0.35), "obstore": Goal(cost=1.6)}
_ROWS_S3 = {1: Goal(rate=2.3, cost=0.5), 3: Goal(rate=1.7)}
# The least that looking at the same bytes costs, and how near to that a loop is to come.
_PLAIN = {
    "read, verify, digest": ("read, xxh3_128 of the xxhash package", 0.7),
    "clog, read and walk": ("read, CRC-32C of google-crc32c", 0.5),
}
_ENGINE_FILE = {"direct": Goal(rate=0.85), "cached": Goal(rate=3.0)}


def kernel_rows(options: Options, peers: Peers, say: Say) -> list[dict[str, Any]]:
    """The kernel's calls, one thread: the extension against its pure twin, and the least that looking costs."""
    from mover.bench.kernel_loops import LOOPS, SOURCE_BLOCKS

    del peers  # everything here is Python of ours
    rows: list[dict[str, Any]] = []
    with scratch_directory(options, SOURCE_BLOCKS * MACROBLOCK_BYTES) as directory:
        source = directory / "blocks"
        write_block_file(source, "engine", SOURCE_BLOCKS)

        def side(name: str, loop: str, *, pure: bool = False, goal: Goal | None = None) -> Side:
            job = {"do": "repeat", "loop": loop, "source": str(source), "seconds": options.seconds}
            environment = {"MOVER_PURE": "1"} if pure else {}
            return Side(name, lambda: run_worker(directory, job, environment), goal)

        for loop in LOOPS:
            others = [side("pure Python twin", loop, pure=True)] if kernel.NATIVE else []
            if loop in _PLAIN:
                plain, rate = _PLAIN[loop]
                others.append(side(plain, plain, goal=Goal(rate=rate)))
            work = Work(f"kernel: {loop}", side("native" if kernel.NATIVE else "pure", loop), others, steady=True)
            rows += compare(work, pairs=options.pairs, warm_up=options.warm_up, say=say)
    return rows


def target_rows(options: Options, peers: Peers, say: Say) -> list[dict[str, Any]]:
    """One large file through the destination's writer, durable and confirmed at its end, and nothing else."""
    with open_place(options, peers) as place, scratch_directory(options, options.size) as directory:
        source = directory / "blocks"
        size = write_block_file(source, "incompressible", block_count(options.size))
        ours = place.ours("mover", {"do": "upload", "source": str(source)}, directory)
        work = Work(f"upload of one file to {place.name}", ours, _raw(place, source, size, directory))
        return compare(work, pairs=options.pairs, warm_up=options.warm_up, say=say)


def pipeline_rows(options: Options, peers: Peers, say: Say) -> list[dict[str, Any]]:
    """Blocks of each kind through the pipeline of a backup: verified, digested, compressed or kept, framed, written."""
    rows: list[dict[str, Any]] = []
    with open_place(options, peers) as place:
        for kind in options.kinds:
            with scratch_directory(options, options.size) as directory:
                source = directory / "blocks"
                size = write_block_file(source, kind, block_count(options.size))
                for compression, others in _rivals(place, kind, source, size, directory):
                    name = f"{kind} blocks, {compression}, to {place.name}"
                    job = {"do": "pack", "source": str(source), "compression": compression}
                    work = Work(name, place.ours("mover", job, directory), others)
                    rows += compare(work, pairs=options.pairs, warm_up=options.warm_up, say=say)
    return rows


def _raw(place: Place, source: Path, size: int, scratch: Path) -> list[Side]:
    """The peers that only carry bytes."""
    if place.directory is not None:
        return place.paths(
            size,
            scratch,
            [
                ("dd oflag=direct, fsync", None, lambda to: place.peers.dd(source, to, direct=True)),
                ("dd, fsync", None, lambda to: place.peers.dd(source, to, direct=False)),
                ("cp, fsync", None, lambda to: place.peers.cp(source, to)),
            ],
        )
    return place.objects(
        source,
        size,
        scratch,
        [
            ("s5cmd cp", None, place.peers.s5cmd),
            ("obstore, unsigned", None, place.peers.obstore_put),
            ("obstore, signed", None, lambda upload: place.peers.obstore_put(upload, signed=True)),
        ],
    )


def _rivals(place: Place, kind: str, source: Path, size: int, scratch: Path) -> Iterator[tuple[str, list[Side]]]:
    """How mover stores this kind, and the peers with what is comparable to it."""
    goals = kind == "engine" and place.options.called is None
    if kind != "rows" and place.directory is not None:
        direct, cached = (_ENGINE_FILE["direct"], _ENGINE_FILE["cached"]) if goals else (None, None)
        yield (
            "auto",
            place.paths(
                size,
                scratch,
                [
                    ("dd oflag=direct, fsync", direct, lambda to: place.peers.dd(source, to, direct=True)),
                    ("dd, fsync", cached, lambda to: place.peers.dd(source, to, direct=False)),
                ],
            ),
        )
    elif kind != "rows":
        s5cmd, obstore = (_ENGINE_S3["s5cmd"], _ENGINE_S3["obstore"]) if goals else (None, None)
        entries = [("s5cmd cp", s5cmd, place.peers.s5cmd), ("obstore, unsigned", obstore, place.peers.obstore_put)]
        others = place.objects(source, size, scratch, entries)
        yield "auto", others + (_compressing(place, source, size, scratch, 1, goal=None) if kind == SEEKDB else [])
    else:
        for level in _LEVELS:
            yield (
                f"zstd:{level}",
                _compressing(
                    place, source, size, scratch, level, goal=None if place.options.called else _ROWS_S3[level]
                ),
            )


def _compressing(place: Place, source: Path, size: int, scratch: Path, level: int, *, goal: Goal | None) -> list[Side]:
    if place.directory is not None:
        name = f"zstd -{level} -T2 | dd oflag=direct, fsync"
        return place.paths(size, scratch, [(name, None, lambda to: place.peers.zstd_dd(source, to, level))])
    name = f"zstd -{level} -T2 | s5cmd pipe"
    entry = (name, goal, lambda upload: place.peers.zstd_s5cmd(upload, level))
    return place.objects(source, size, scratch, [entry])


def block_count(size: int) -> int:
    """How many blocks make about ``size`` bytes."""
    return max(1, size // MACROBLOCK_BYTES)


SUITES: dict[str, Callable[[Options, Peers, Say], list[dict[str, Any]]]] = {
    "kernel": kernel_rows,
    "target": target_rows,
    "pipeline": pipeline_rows,
    "archive": archive_rows,
    "restore": restore_rows,
    "peers": peers_rows,
    "start": start_rows,
}
