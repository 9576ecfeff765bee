"""`mover bench`: throughput on this hardware, mover and its peers in turn."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click

from mover.cli.command import Group
from mover.cli.ending import DONE, Interrupted
from mover.cli.invocation import Invocation
from mover.cli.output import print_json, say, warn
from mover.config_values import parse_size
from mover.errors import ConfigError

_KINDS = ("engine", "rows", "incompressible")


@click.group(
    "bench",
    cls=Group,
    short_help="Throughput on this hardware, mover and its peers in turn.",
    help="""Measure mover on this hardware, beside what could be used instead.

mover and each peer that is installed do the same work in turn, as processes of their own. Wall time, CPU seconds and
memory are those that the system reports for all their processes, the start of Python included (the kernel's loops
excepted; where a side says when its work began, the ratios of rate and cost without start-up are shown too). Ratios
are taken in each round, so a busy machine disturbs both sides; medians and ranges are shown.

Peers are s5cmd, obstore, zstd, dd and cp, looked for in --peers (`make bench-peers` makes such a directory) and on the
PATH. The data that goes in is made in memory when it fits there twice; --scratch-dir names another place.""",
)
def command() -> None:
    """See the help."""


def _shared(function: Any) -> Any:
    for option in (
        click.option(
            "--out",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="Write the report there: JSON, a Markdown table and, with matplotlib installed, a plot.",
        ),
        click.option(
            "--peers",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False, exists=True),
            help="Virtual environment with peers; else .venv-peers here, if there is one.",
        ),
        click.option("--warm-up", metavar="N", default=1, show_default=True, type=click.IntRange(0, 100),
                     help="Rounds before the ones that count."),
        click.option("--pairs", metavar="N", default=5, show_default=True, type=click.IntRange(1, 1000),
                     help="Rounds that count: each side once in each."),
    ):  # fmt: skip
        function = option(function)
    return click.pass_obj(function)


def _sized(function: Any) -> Any:
    return click.option("--size", default="1GiB", show_default=True, help="Bytes that go in, in each run.")(function)


@command.command(
    "kernel",
    short_help="Checksums, codecs, decoders and framing, one thread.",
    help="""Measure the loops over bytes, on one thread: checksums, codecs, macroblock and log checks, framing.

The native extension is compared with its twin in pure Python, and reading, verifying and digesting blocks with a plain
read and XXH3 by another library.""",
    examples=("mover bench kernel", "mover bench kernel --seconds 2 --out results"),
)
@_shared
@click.option("--seconds", default=0.5, show_default=True, type=click.FloatRange(0.001, 600), help="Of each run.")
def kernel(
    invocation: Invocation, pairs: int, warm_up: int, peers: Path | None, out: Path | None, seconds: float
) -> int:
    return _run(invocation, "kernel", pairs=pairs, warm_up=warm_up, peers=peers, out=out, size="0", seconds=seconds)


@command.command(
    "target",
    short_help="One large file to the destination.",
    help="""Measure how fast a large file becomes durable and confirmed at --dest, with --part-size and --concurrency.

Peers at a directory: dd with and without O_DIRECT, and cp, each with fsync. Peers at a bucket: s5cmd and obstore, with
the same part size and concurrency. Everything written is removed again.""",
    examples=(
        "mover bench target --dest file:///mnt/backup",
        "mover bench target --dest 's3://bucket/p?endpoint=http://127.0.0.1:8333' --size 4G --concurrency 8",
    ),
)
@_shared
@_sized
def target(invocation: Invocation, pairs: int, warm_up: int, peers: Path | None, out: Path | None, size: str) -> int:
    return _run(invocation, "target", pairs=pairs, warm_up=warm_up, peers=peers, out=out, size=size)


@command.command(
    "pipeline",
    short_help="Macroblocks through the whole path of a backup.",
    help="""Measure the path of a backup: read blocks, verify, digest, compress or keep, frame, write, publish.

The blocks are made for it: `engine` as an engine that compresses leaves them (zstd makes 0.95 of them), `rows` as one
that does not (0.4), `incompressible`. Peers carry the same bytes without looking at them, or compress them with zstd.
Everything written is removed again.""",
    examples=(
        "mover bench pipeline --dest file:///mnt/backup",
        "mover bench pipeline --dest 's3://bucket/p?endpoint=http://127.0.0.1:8333' --kind rows --pairs 7",
    ),
)
@_shared
@_sized
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(_KINDS), help="Only blocks of this kind; may be repeated."
)
def pipeline(
    invocation: Invocation,
    pairs: int,
    warm_up: int,
    peers: Path | None,
    out: Path | None,
    size: str,
    kinds: tuple[str, ...],
) -> int:
    return _run(
        invocation, "pipeline", pairs=pairs, warm_up=warm_up, peers=peers, out=out, size=size, kinds=kinds or _KINDS
    )


def _run(
    invocation: Invocation,
    suite: str,
    *,
    pairs: int,
    warm_up: int,
    peers: Path | None,
    out: Path | None,
    size: str,
    seconds: float = 0.5,
    kinds: tuple[str, ...] = (),
) -> int:
    from mover.bench import machine, report
    from mover.bench.peers import Peers
    from mover.bench.suites import SUITES, Options

    settings = invocation.settings() if suite == "kernel" else invocation.settings("dest")
    try:
        count = parse_size(size)
    except ValueError as error:
        raise ConfigError(f"--size {error}", hint="Write 256MiB or 1G.") from error
    here = Path(".venv-peers")
    installed = Peers(peers or (here.resolve() if here.is_dir() else None))
    options = Options(
        size=count,
        pairs=pairs,
        warm_up=warm_up,
        memory=settings.memory,
        workers=settings.workers,
        concurrency=settings.concurrency,
        part_size=settings.part_size,
        scratch=settings.scratch_dir,
        dest=settings.dest,
        kinds=kinds,
        seconds=seconds,
    )

    def progress(line: str) -> None:
        if not invocation.quiet:
            warn(line, invocation.redactor)

    load = os.getloadavg()
    with _ending_cleanly():
        rows = SUITES[suite](options, installed, progress)
    facts = machine.describe(installed.versions()) | {"load_average": [round(value, 2) for value in load]}
    result = {"machine": facts, "rows": rows}
    written = report.write(result, out, suite) if out is not None else []
    if invocation.json:
        print_json(result, invocation.redactor)
        return DONE
    from mover.cli.render import show_table

    show_table(invocation, "", report.COLUMNS, [report.cells(row) for row in rows])
    if load[0] > 0.5:
        say(f"the machine was busy before the run (load average {load[0]:.1f}): trust the ratios, not the rates")
    for path in written:
        say(f"wrote {path}", invocation.redactor)
    return DONE


@contextlib.contextmanager
def _ending_cleanly() -> Iterator[None]:
    """SIGINT and SIGTERM end the run; its processes and its data go first."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
