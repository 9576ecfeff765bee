"""`mover serve`: the resident coordinator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mover.cli.command import Command
from mover.cli.ending import DONE
from mover.cli.invocation import Invocation
from mover.cli.job import display_for
from mover.cli.output import print_json, say

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.rootservice.schedule import Schedule

PLANNED = 10


@click.command(
    "serve",
    cls=Command,
    short_help="Archive without a break and take backups by a schedule.",
    help="""Stay and do what is due: archive the log without a break (the first round is begun, one that was stopped
stays stopped) and take the backups of --full-at and --incremental-at. Whatever fails is said and tried again.

Several may serve the same destination with one --catalog on a server: one works, the others stand by and take over
within --lease-ttl of its death. SIGTERM or Ctrl-C ends it cleanly. With --json every event is a line.""",
    examples=(
        "mover serve --full-at '0 1 * * SAT' --incremental-at '0 1 * * TUE,THU' --plan",
        "mover --config /etc/mover/mover.toml serve",
    ),
)
@click.option("--plan", is_flag=True, help=f"Only say what is due next: the first {PLANNED} backups.")
@click.pass_obj
def command(invocation: Invocation, plan: bool) -> int:
    from mover.cli.runner import run_job
    from mover.rootservice.schedule import Schedule

    settings = invocation.settings(*([] if plan else ["dest", "source"]))
    schedule = Schedule(settings.full_at, settings.incremental_at)
    if plan:
        return _plan(invocation, schedule)
    display = display_for(invocation, stream=True)

    async def body(control: Control) -> None:
        from mover.rootservice.serve import serve

        with control.graceful() as stop:
            await serve(settings, schedule, emit=display.emit, stop=stop)

    return run_job(body, display).status(DONE)


def _plan(invocation: Invocation, schedule: Schedule) -> int:
    from itertools import islice

    from mover.clock import SystemClock, iso_from_us

    due = [
        {"backup": each.work, "at": iso_from_us(each.at_us)}
        for each in islice(schedule.after(SystemClock().now_us()), PLANNED)
    ]
    if invocation.json:
        print_json({"scheduled": due}, invocation.redactor)
    else:
        for each in due:
            say(f"{each['at']}  {each['backup']}")
        if not due:
            say("nothing is scheduled: give --full-at or --incremental-at")
    return DONE
