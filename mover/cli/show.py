"""`mover show`: the views, as tables or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mover.cli.archivelog import show_rounds
from mover.cli.command import Group
from mover.cli.ending import DONE
from mover.cli.invocation import Invocation
from mover.cli.job import Body, with_session

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.rootservice.session import Session


@click.group(
    "show",
    cls=Group,
    help="Look at sets, rounds, recoverable windows and jobs. Needs the destination only.",
    examples=("mover show windows --dest file:///mnt/backup", "mover show sets --json"),
)
def command() -> None:
    """See help."""


@command.command(
    "sets",
    help="Every backup set: type, status, first moment it restores to, blocks, bytes.",
    examples=("mover show sets --dest file:///mnt/backup",),
)
@click.pass_obj
def sets(invocation: Invocation) -> int:
    async def body(session: Session, _control: Control) -> Any:
        from mover.rootservice import views

        return await views.sets(session)

    return _show(invocation, "sets", body, need_catalog=False)


@command.command(
    "archivelog",
    help="Every archive round; the same as `mover archivelog status`.",
    examples=("mover show archivelog --dest file:///mnt/backup",),
)
@click.pass_obj
def archivelog(invocation: Invocation) -> int:
    return show_rounds(invocation)


@command.command(
    "windows",
    help="Every interval that can be restored, with the sets that reach it, and every hole with its reason.",
    examples=("mover show windows --dest file:///mnt/backup --json",),
)
@click.pass_obj
def windows(invocation: Invocation) -> int:
    async def body(session: Session, _control: Control) -> Any:
        from mover.recovery.windows import all_windows

        return await all_windows(session.repository, concurrency=session.settings.concurrency)

    # A round that lost mover's record says by its log how far it reaches.
    return _show(invocation, "windows", body, need_catalog=False, need_keys=True)


@command.command(
    "progress",
    help="Running jobs: how far each tenant is.",
    examples=("mover show progress --dest file:///mnt/backup",),
)
@click.pass_obj
def progress(invocation: Invocation) -> int:
    return _jobs(invocation, "progress")


@command.command(
    "tasks",
    help="Tasks of the latest jobs by partition group, with their state and attempts.",
    examples=("mover show tasks --dest file:///mnt/backup",),
)
@click.pass_obj
def tasks(invocation: Invocation) -> int:
    return _jobs(invocation, "tasks")


@command.command(
    "jobs",
    help="Past and present jobs: when, what, how they ended.",
    examples=("mover show jobs --dest file:///mnt/backup",),
)
@click.pass_obj
def jobs(invocation: Invocation) -> int:
    return _jobs(invocation, "jobs")


def _jobs(invocation: Invocation, name: str) -> int:
    async def body(session: Session, _control: Control) -> Any:
        from mover.rootservice import job_views

        return await getattr(job_views, name)(session)

    return _show(invocation, name, body, need_catalog=True)


def _show(invocation: Invocation, name: str, body: Body[Any], *, need_catalog: bool, need_keys: bool = False) -> int:
    from mover.cli.render import show_view

    outcome = with_session(
        invocation, body, need_source=False, need_catalog=need_catalog, need_keys=need_keys, silent=True
    )
    show_view(invocation, name, outcome.value.as_json())
    return outcome.status(DONE)
