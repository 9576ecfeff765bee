"""`mover catalog`: the coordinator's database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mover.cli.command import Group
from mover.cli.ending import DONE, PARTLY
from mover.cli.invocation import Invocation
from mover.cli.job import with_session
from mover.cli.output import print_json, say

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.rootservice.catalog_rebuild import Rebuilt
    from mover.rootservice.session import Session


@click.group(
    "catalog",
    cls=Group,
    help="The coordinator's database: an index of what is at the destination, and the place of the lease.",
    examples=("mover catalog rebuild --dest file:///mnt/backup",),
)
def command() -> None:
    """See help."""


@command.command(
    "rebuild",
    short_help="Read the catalog's rows from the destination again.",
    help="""Replace what the catalog says about past backups and archive rounds by what the destination says: after the
catalog was lost, or for a new one. Needs the destination only, and changes nothing there. Refused while a backup
runs.""",
    examples=(
        "mover catalog rebuild --dest file:///mnt/backup",
        "mover catalog rebuild --dest file:///mnt/backup --catalog mysql+asyncmy://mover:PASSWORD@db:3306/mover",
    ),
)
@click.pass_obj
def rebuild(invocation: Invocation) -> int:
    async def body(session: Session, _control: Control) -> Rebuilt:
        from mover.rootservice.catalog_rebuild import rebuild as run

        return await run(session)

    outcome = with_session(invocation, body, need_source=False)
    found = outcome.value
    if invocation.json:
        print_json(found.as_json(), invocation.redactor)
    elif not invocation.quiet:
        say(f"{found.backups} backups and {found.rounds} archive rounds of {found.tenants} tenants")
    return outcome.status(PARTLY if found.unreadable else DONE)
