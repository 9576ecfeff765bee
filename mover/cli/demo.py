"""`mover demo`: the whole story on an engine of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mover.cli.command import Command
from mover.cli.ending import DONE, INTEGRITY
from mover.cli.invocation import Invocation
from mover.cli.job import display_for
from mover.cli.output import print_json, say
from mover.cli.units import span_text

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.demo.story import Report


@click.command(
    "demo",
    cls=Command,
    short_help="The whole story on an engine of its own: back up, destroy, restore, compare.",
    help="""Watch a real engine being backed up while it is written to, and restored to a moment.

Starts a seekdb of its own, loads tables, archives its log, takes a full backup under write load, writes more, takes an
incremental, validates, notes a moment, destroys rows and tables, restores to that moment, boots the restored store and
compares every table. Ends with a table and exit status 0, or says what differs (status 5).

Needs the engine (`pip install 'mover[demo]'`), about 3 GB of disk and three minutes. An s3:// bucket must exist.""",
    examples=(
        "mover demo",
        "mover demo --dir /srv/demo                      # keep everything, to look around",
        "mover demo --dest 's3://bucket/demo?endpoint=http://127.0.0.1:8333'",
    ),
)
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work here and keep it; it must be empty or new. Without it, a temporary directory that is removed.",
)
@click.pass_obj
def command(invocation: Invocation, directory: Path | None) -> int:
    from mover.cli.runner import run_job

    settings = invocation.settings()
    display = display_for(invocation)
    began = time.monotonic()

    def step(text: str) -> None:
        if not invocation.json and not invocation.quiet:
            say(f"{span_text(time.monotonic() - began):>7}  {text}", invocation.redactor)

    async def body(_control: Control) -> Report:
        from mover.demo.story import tell

        # Not graceful: a throw-away story is cancelled, and cleans up on its way out.
        return await tell(settings, directory=directory, step=step, emit=display.emit)

    report = run_job(body, display).value
    if invocation.json:
        print_json(report.as_json(), invocation.redactor)
    else:
        from mover.cli.render import show_report

        show_report(invocation, report.as_json())
    return DONE if report.ok else INTEGRITY
