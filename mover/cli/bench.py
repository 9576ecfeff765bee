"""`mover bench`: throughput on this hardware, mover and its peers in turn."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import click

from mover.cli.command import Group
from mover.cli.ending import DONE, Interrupted
from mover.cli.invocation import Invocation
from mover.cli.output import print_json, say, warn
from mover.config import OPTIONS
from mover.config_values import parse_size
from mover.errors import ConfigError

_KINDS = ("engine", "rows", "incompressible")
_PEERS_CONCURRENCY = 8  # where none is given: peers have to be told a number
_TUNING = ("memory", "concurrency", "part_size", "workers", "processes")


@click.group(
    "bench",
    cls=Group,
    short_help="Throughput on this hardware, mover and its peers in turn.",
    help="""Measure mover on this hardware, beside what could be used instead.

mover and each peer that is installed do the same work in turn, as processes of their own. Wall time, CPU seconds and
memory are those that the system reports for all their processes, the start of Python included (the kernel's loops
excepted; where a side says when its work began, the ratios of rate and cost without start-up are shown too). Ratios
are taken in each round, so a busy machine disturbs both sides; medians and ranges are shown.

Peers are s5cmd, obstore, rclone, restic, borg, zstd, xxhsum, dd and cp, looked for in --peers (`make bench-peers` makes
such a directory) and on the PATH. The data that goes in is made in memory when it fits there twice; --scratch-dir names
another place.""",
)
def command() -> None:
    """See the help."""


class _Shared(NamedTuple):
    """What every suite is told."""

    pairs: int
    warm_up: int
    peers: Path | None
    out: Path | None
    called: str | None


def _shared(command: Callable[..., int]) -> Any:
    """The options of every suite, handed over as one."""

    def call(invocation: Invocation, **options: Any) -> int:
        shared = _Shared(*(options.pop(name) for name in _Shared._fields))
        return command(invocation, shared, **options)

    function: Any = click.pass_obj(functools.update_wrapper(call, command))
    for option in (
        click.option(
            "--called", metavar="NAME", help="What the report calls the destination; such a one is held to no goals."
        ),
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
    return function


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
def kernel(invocation: Invocation, shared: _Shared, seconds: float) -> int:
    return _run(invocation, "kernel", shared, size="0", seconds=seconds)


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
def target(invocation: Invocation, shared: _Shared, size: str) -> int:
    return _run(invocation, "target", shared, size=size)


@command.command(
    "pipeline",
    short_help="Macroblocks through the whole path of a backup.",
    help="""Measure the path of a backup: read blocks, verify, digest, compress or keep, frame, write, publish.

The blocks are made for it: `engine` as an engine that compresses leaves them (zstd makes 0.95 of them), `rows` as one
that does not (0.4), `incompressible`; `seekdb` takes those of an engine that is started for it, where one is installed.
Peers carry the same bytes without looking at them, or compress them with zstd.
Everything written is removed again.""",
    examples=(
        "mover bench pipeline --dest file:///mnt/backup",
        "mover bench pipeline --dest 's3://bucket/p?endpoint=http://127.0.0.1:8333' --kind rows --pairs 7",
    ),
)
@_shared
@_sized
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice((*_KINDS, "seekdb")),
    help="Only blocks of this kind; may be repeated.",
)
def pipeline(
    invocation: Invocation,
    shared: _Shared,
    size: str,
    kinds: tuple[str, ...],
) -> int:
    return _run(invocation, "pipeline", shared, size=size, kinds=kinds or _KINDS)


def _shared_by_whole(function: Any) -> Any:
    return click.option(
        "--kind", "kinds", multiple=True, type=click.Choice(("engine", "rows")), help="Only blocks of this kind."
    )(function)


@command.command(
    "archive",
    short_help="Lag and cost of the archiver on a log that grows.",
    help="""Measure the archiver at --dest on a log that grows at a steady rate.

The log is made of valid groups that hold rows, and at the middle rate of random bytes, too. Lag is that of every group,
from its commit until a checkpoint that covers it was published; of several runs the worst counts.""",
    examples=(
        "mover bench archive --dest file:///mnt/backup",
        "mover bench archive --dest file:///mnt/backup --rate 200 --seconds 30",
    ),
)
@_shared
@click.option(
    "--rate",
    "rates",
    multiple=True,
    type=click.FloatRange(0.1, 10000),
    metavar="MB/S",
    help="MB of redo per second; may be repeated.  [default: 20, 60, 100]",
)
@click.option("--seconds", default=8.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Of each run.")
def archive(
    invocation: Invocation,
    shared: _Shared,
    rates: tuple[float, ...],
    seconds: float,
) -> int:
    return _run(
        invocation, "archive", shared, seconds=seconds,
        rates=rates or (20, 60, 100),
    )  # fmt: skip


@command.command(
    "restore",
    short_help="Restore, validate and incrementals of a stopped store.",
    help="""Measure whole commands on a store that is made for it: restore and validate of a full set, and incrementals
of which one block in a hundred has changed, beside fulls.

Peers at a directory: dd with O_DIRECT of the same files, and xxhsum. What was backed up is dropped from the page cache
before each run. A sink that throws content away can not be restored from: use a directory or a real bucket.""",
    examples=("mover bench restore --dest file:///mnt/backup --size 4G",),
)
@_shared
@_sized
@_shared_by_whole
def restore(
    invocation: Invocation, shared: _Shared, size: str,
    kinds: tuple[str, ...],
) -> int:  # fmt: skip
    return _run(invocation, "restore", shared, size=size, kinds=kinds)


@command.command(
    "peers",
    short_help="A whole backup beside whole tools.",
    help="""Measure `mover backup full` of a store that is made for it, beside tools that take the same block file.

At a directory: dd, cp, rclone, borg and restic; at a bucket: s5cmd, obstore and rclone, with borg and restic writing
into memory. Blocks of rows are compressed by everybody (zstd level 3).""",
    examples=("mover bench peers --dest file:///mnt/backup --size 512MiB",),
)
@_shared
@_sized
@_shared_by_whole
def whole_tools(
    invocation: Invocation, shared: _Shared, size: str,
    kinds: tuple[str, ...],
) -> int:  # fmt: skip
    return _run(invocation, "peers", shared, size=size, kinds=kinds)


@command.command(
    "start",
    short_help="How long the program takes to start.",
    help="Measure `mover --version`, and `mover show sets` on a small tree.",
    examples=("mover bench start",),
)
@_shared
def start(invocation: Invocation, shared: _Shared) -> int:
    return _run(invocation, "start", shared)


def _run(
    invocation: Invocation,
    suite: str,
    shared: _Shared,
    *,
    size: str = "0",
    seconds: float = 0.5,
    kinds: tuple[str, ...] = (),
    rates: tuple[float, ...] = (),
) -> int:
    from mover.bench import machine, report
    from mover.bench.peers import Peers
    from mover.bench.place import Options
    from mover.bench.suites import SUITES

    settings = invocation.settings() if suite in ("kernel", "start") else invocation.settings("dest")
    origins = settings.origins()
    chosen = {
        option.env: os.environ.get(option.env, option.show(getattr(settings, option.name)))
        for option in OPTIONS
        if option.name in _TUNING and option.name in origins and origins[option.name].kind != "default"
    }
    try:
        count = parse_size(size)
    except ValueError as error:
        raise ConfigError(f"--size {error}", hint="Write 256MiB or 1G.") from error
    here = Path(".venv-peers")
    installed = Peers(shared.peers or (here.resolve() if here.is_dir() else None))
    options = Options(
        size=count,
        pairs=shared.pairs,
        warm_up=shared.warm_up,
        called=shared.called,
        memory=settings.memory,
        workers=settings.workers,
        concurrency=settings.concurrency or _PEERS_CONCURRENCY,
        part_size=settings.part_size,
        scratch=settings.scratch_dir,
        dest=settings.dest,
        kinds=kinds,
        seconds=seconds,
        rates=rates,
        flush_interval=settings.flush_interval,
        compression=settings.compression,
        chosen=chosen,
    )

    def progress(line: str) -> None:
        if not invocation.quiet:
            warn(line, invocation.redactor)

    load = os.getloadavg()
    with _ending_cleanly():
        rows = SUITES[suite](options, installed, progress)
    facts = machine.describe(installed.versions()) | {"load_average": [round(value, 2) for value in load]}
    result = {"machine": facts, "rows": rows}
    written = report.write(result, shared.out, suite) if shared.out is not None else []
    if invocation.json:
        print_json(result, invocation.redactor)
        return DONE
    from mover.cli.render import show_table

    for columns, lines in report.tables(rows):
        show_table(invocation, "", columns, lines)
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
