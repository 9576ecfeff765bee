"""`mover sim`: synthetic OceanBase 3.1 clusters on disk, for trying and testing."""

from __future__ import annotations

from pathlib import Path

import click

from mover.cli.command import Group
from mover.cli.ending import DONE
from mover.cli.invocation import Invocation
from mover.cli.output import print_json, say
from mover.store.sim.plan import Plan


class Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes: 64MB, 2MiB, 4096."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from mover.config_values import parse_size

        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group(
    "sim",
    cls=Group,
    short_help="Synthetic OceanBase 3.1 clusters.",
    help="""Make the files of an OceanBase 3.1 cluster from a seed: stores of observers, the virtual tables, the truth.

No server runs. The same seed and the same commands give the same bytes.""",
)
def command() -> None:
    """See help."""


@command.command(
    "create",
    short_help="Make a cluster in DIR.",
    help="""Make a cluster in DIR, which must be empty: a store for each observer, catalog.json and ledger.json.""",
    examples=("mover sim create /tmp/cluster --seed 1 --observers 3 --tenants 2 --pgs 12 --log-size 64MB",),
)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=1, show_default=True, help="Decides all bytes.")
@click.option("--observers", type=int, default=3, show_default=True, help="Servers; a PG has up to three replicas.")
@click.option("--tenants", type=int, default=1, show_default=True, help="User tenants.")
@click.option("--pgs", type=int, default=4, show_default=True, help="PGs of all tenants together.")
@click.option("--blocks", type=int, default=4, show_default=True, help="Macro blocks in the majors of a PG.")
@click.option("--block-size", type=Size(), default=2 << 20, help="What a full macro block occupies. [default: 2MiB]")
@click.option("--log-size", type=Size(), default=4 << 20, help="Log on the busiest server. [default: 4MiB]")
@click.option(
    "--clog-fill", type=Size(), default=1 << 26, help="Finish clog files here at the latest. [default: 64MiB]"
)
@click.option("--sys-pgs", type=int, default=0, show_default=True, help="PGs of the sys tenant, which has log as well.")
@click.pass_obj
def create_command(
    invocation: Invocation,
    directory: Path,
    seed: int,
    observers: int,
    tenants: int,
    pgs: int,
    blocks: int,
    block_size: int,
    log_size: int,
    clog_fill: int,
    sys_pgs: int,
) -> int:
    from mover.store.sim.cluster import create

    plan = Plan(seed, observers, tenants, pgs, blocks, block_size, log_size, clog_fill=clog_fill, sys_pgs=sys_pgs)
    cluster = create(directory, plan)
    _tell(invocation, directory, cluster.generation)
    return DONE


@command.command(
    "grow",
    short_help="Let the cluster in DIR live on.",
    help="""Append log in the cluster in DIR and compact some of its sstables: blocks are written and freed.""",
    examples=("mover sim grow /tmp/cluster", "mover sim grow /tmp/cluster --log-size 200MB --recycle 2"),
)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--log-size", type=Size(), default=None, help="Log on the busiest server. [default: as created]")
@click.option("--recycle", type=int, default=0, show_default=True, help="Give up so many of the oldest clog files.")
@click.option("--major/--minor", default=None, help="A major merge or not. [default: every third time]")
@click.pass_obj
def grow_command(
    invocation: Invocation, directory: Path, log_size: int | None, recycle: int, major: bool | None
) -> int:
    from mover.store.sim.cluster import grow

    cluster = grow(directory, log_size=log_size, recycle=recycle, major=major)
    _tell(invocation, directory, cluster.generation)
    return DONE


def _tell(invocation: Invocation, directory: Path, generation: int) -> None:
    if invocation.json:
        document = {"directory": str(directory), "generation": generation}
        print_json(document, invocation.redactor)
    elif not invocation.quiet:
        say(f"{directory}: generation {generation}; the truth is in ledger.json, the virtual tables in catalog.json")
