"""`mover sweep`: remove what crashed runs left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mover.cli.command import Command
from mover.cli.ending import DONE
from mover.cli.invocation import Invocation
from mover.cli.job import with_session
from mover.cli.output import print_json, say
from mover.config_values import parse_duration

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.rootservice.session import Session
    from mover.rootservice.sweep import SweepReport


@click.command(
    "sweep",
    cls=Command,
    short_help="Remove what crashed runs left behind.",
    help="""Remove what runs that were killed left at the destination: unfinished uploads and temporary files, and the
files of backups that will never be complete. Nothing that was published is touched. Refused while a backup runs.""",
    examples=(
        "mover sweep --dest file:///mnt/backup --older-than 1d --plan",
        "mover sweep --dest 's3://bucket/backup?endpoint=http://127.0.0.1:8333' --older-than 6h",
    ),
)
@click.option(
    "--older-than", default="1d", show_default=True, metavar="TIME", help="Leave alone what began less than this ago."
)
@click.option("--plan", is_flag=True, help="Only say what would be removed, and why.")
@click.pass_obj
def command(invocation: Invocation, older_than: str, plan: bool) -> int:
    try:
        seconds = parse_duration(older_than)
    except ValueError as error:
        raise click.UsageError(f"--older-than {error}", click.get_current_context()) from None

    async def body(session: Session, _control: Control) -> SweepReport:
        from mover.rootservice.sweep import sweep

        return await sweep(session, older_than=seconds, plan=plan)

    outcome = with_session(invocation, body, need_source=False)
    report = outcome.value
    if invocation.json:
        print_json(report.as_json(), invocation.redactor)
    elif not invocation.quiet:
        from mover.cli.render import show_view

        if report.removals:
            show_view(invocation, "removals", {"removals": report.as_json()["removals"]})
        did = "would be removed" if plan else "removed"
        if report.locked:
            last = max(report.locked.values()).isoformat()
            say(f"{len(report.locked)} are locked at the destination, the last until {last}: sweep again after that")
        say(f"{len(report.removals)} {did}, {report.kept} too young, {report.foreign} of other programs left alone")
    return outcome.status(DONE)
