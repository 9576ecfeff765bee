"""`mover archivelog`: rounds of log archiving."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from mover.cli.command import Group
from mover.cli.ending import DONE
from mover.cli.invocation import Invocation
from mover.cli.job import with_session
from mover.cli.output import print_json, say

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.rootservice.round_views import ArchiveView, RoundView
    from mover.rootservice.session import Session


@click.group(
    "archivelog",
    cls=Group,
    help="""Archive the commit log without a break.

A round begins with `start` and ends with `stop`; between them `run` copies every committed byte of log to the
destination and publishes how far it is. Backups need a round that is DOING.""",
    examples=(
        "mover archivelog start --source seekdb:///srv/seekdb --dest file:///mnt/backup",
        "mover archivelog run   --source seekdb:///srv/seekdb --dest file:///mnt/backup",
    ),
)
def command() -> None:
    """See help."""


@command.command(
    "start",
    help="Begin a round at the oldest log that the store still has. Refused while a round is not stopped.",
    examples=("mover archivelog start --source seekdb:///srv/seekdb --dest file:///mnt/backup",),
)
@click.pass_obj
def start(invocation: Invocation) -> int:
    async def body(session: Session, _control: Control) -> RoundView | ArchiveView:
        from mover.rootservice import archive

        return await archive.start(session)

    outcome = with_session(invocation, body, need_source=True, create=True)
    _report(invocation, outcome.value, "started; `mover archivelog run` archives")
    return outcome.status(DONE)


@command.command(
    "stop",
    help="End the round. A running archiver first archives what is committed; without one the round ends where its "
    "log at the destination ends. With --source the hold on the engine's log files is dropped too.",
    examples=("mover archivelog stop --dest file:///mnt/backup",),
)
@click.pass_obj
def stop(invocation: Invocation) -> int:
    async def body(session: Session, _control: Control) -> RoundView | ArchiveView:
        from mover.rootservice import archive

        return await archive.stop(session)

    outcome = with_session(invocation, body, need_source=invocation.settings().source is not None)
    _report(invocation, outcome.value, "stopped")
    return outcome.status(DONE)


@command.command(
    "run",
    help="Archive in the foreground until the round is stopped or SIGTERM or Ctrl-C comes; what was read by then is "
    "archived first. With --json every event is a line and the round the last one; with --until-caught-up the round is "
    "the only one.",
    examples=(
        "mover archivelog run --source seekdb:///srv/seekdb --dest file:///mnt/backup",
        "mover archivelog run --until-caught-up --quiet     # from cron",
    ),
)
@click.option(
    "--until-caught-up", is_flag=True, help="Return as soon as everything committed at the start is archived."
)
@click.pass_obj
def run(invocation: Invocation, until_caught_up: bool) -> int:
    async def body(session: Session, control: Control) -> RoundView | ArchiveView:
        from mover.rootservice import archive

        with control.graceful() as stop:
            return await archive.run(session, until_caught_up=until_caught_up, stop=stop)

    outcome = with_session(invocation, body, need_source=True, archiving=True, stream=not until_caught_up)
    if invocation.json and not until_caught_up:
        print_json({"type": "result", **outcome.value.as_json()}, invocation.redactor)
    else:
        _report(invocation, outcome.value, "caught up" if until_caught_up and outcome.signal is None else "ended")
    return outcome.status(DONE)


@command.command(
    "status",
    help="Show every round: its status, the time it covers, how far it is durable, and its lag. Needs no source.",
    examples=("mover archivelog status --dest file:///mnt/backup --json",),
)
@click.pass_obj
def status(invocation: Invocation) -> int:
    return show_rounds(invocation)


def show_rounds(invocation: Invocation) -> int:
    """All rounds, as a table or as JSON."""

    async def body(session: Session, _control: Control) -> ArchiveView:
        from mover.rootservice.round_views import archive_view

        return await archive_view(session)

    from mover.cli.render import show_view

    outcome = with_session(invocation, body, need_source=False, need_catalog=False, need_keys=False, silent=True)
    show_view(invocation, "archivelog", outcome.value.as_json())
    return outcome.status(DONE)


def _report(invocation: Invocation, view: RoundView | ArchiveView, did: str) -> None:
    found = view.as_json()
    if invocation.json:
        print_json(found, invocation.redactor)
        return
    rounds = found.get("rounds", (found,))
    for entry in () if invocation.quiet else cast("list[dict[str, object]]", rounds):
        say(
            f"archive round {entry['round']} of tenant {entry['tenant_id']} is {entry['status']} ({did}); "
            f"durable to {entry['max_next_time']} (lsn {entry['checkpoint_lsn']})",
            invocation.redactor,
        )
