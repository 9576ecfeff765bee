"""`mover doctor`: try what a backup will do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mover.cli.command import Command
from mover.cli.ending import DONE
from mover.cli.invocation import Invocation
from mover.cli.output import print_json, say
from mover.errors import ConfigError, PreconditionError

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.rootservice.doctor import Check, Examination


@click.command(
    "doctor",
    cls=Command,
    short_help="Try what a backup will do, and say what will not work.",
    help="""Examine the source and the destination, whichever are given: sign-in, clocks, what is listed after it was
written, names that are written once, files in parts, deletes, throughput, room, mount options, log retention.

What it writes goes below .mover-doctor at the destination, and is removed. The exit status is 4 when a backup would be
refused or could not be relied upon.""",
    examples=(
        "mover doctor --source seekdb:///srv/seekdb --dest file:///mnt/backup",
        "mover doctor --dest 's3://bucket/backup?endpoint=http://127.0.0.1:8333' --seconds 10 --json",
    ),
)
@click.option(
    "--seconds",
    default=2.0,
    show_default=True,
    metavar="N",
    type=click.FloatRange(0, 3600),
    help="How long throughput is measured.",
)
@click.pass_obj
def command(invocation: Invocation, seconds: float) -> int:
    from mover.cli.progress import Display
    from mover.cli.runner import run_job

    settings = invocation.settings()
    if settings.source is None and settings.dest is None:
        raise ConfigError("nothing to examine", hint="name --source, --dest or both")

    async def body(_control: Control) -> Examination:
        from mover.rootservice.doctor import examine

        return await examine(settings, seconds=seconds, on_check=lambda _check: None)

    found: Any = run_job(body, Display()).value
    if invocation.json:
        print_json(found.as_json(), invocation.redactor)
    elif not invocation.quiet:
        _show(invocation, found.checks)
    return DONE if found.ok else PreconditionError.exit_code


def _show(invocation: Invocation, checks: tuple[Check, ...]) -> None:
    from mover.cli.render import show_table

    rows = [[check.subject, check.name, str(check.state), check.detail] for check in checks]
    show_table(invocation, "", ["", "check", "state", "found"], rows)
    for check in checks:
        if check.advice:
            say(f"{check.subject} {check.name}: {check.advice}", invocation.redactor)
