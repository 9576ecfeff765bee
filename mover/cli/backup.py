"""`mover backup`: data backups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from mover.cli.command import Group
from mover.cli.ending import DONE, PARTLY
from mover.cli.invocation import Invocation
from mover.cli.job import with_session
from mover.cli.output import print_json, warn
from mover.errors import PreconditionError

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.rootservice.backup import BackupPaused
    from mover.rootservice.backup_decision import BackupPlan
    from mover.rootservice.cluster_backups import ClusterSets
    from mover.rootservice.session import Session
    from mover.rootservice.views import SetView


@click.group(
    "backup",
    cls=Group,
    help="""Take data backups while the database runs.

A full stores every block in use; an incremental stores what is new or changed since the set before it, and becomes a
full when there is none. Both need an archive round that is DOING (error -9040 otherwise). A set is reported as
restorable once the archive has passed its end.""",
    examples=(
        "mover backup full        --source seekdb:///srv/seekdb --dest file:///mnt/backup",
        "mover backup incremental --source seekdb:///srv/seekdb --dest file:///mnt/backup",
    ),
)
def command() -> None:
    """See help."""


_plan = click.option("--plan", is_flag=True, help="Say what would be read and stored; write nothing.")
_tenant = click.option(
    "--tenant", "tenants", multiple=True, metavar="NAME|ID", help="Only this tenant; may be repeated."
)


@command.command(
    "full",
    help="Back up every block in use.",
    examples=(
        "mover backup full --source seekdb:///srv/seekdb --dest file:///mnt/backup",
        "mover backup full --plan --json",
    ),
)
@_plan
@_tenant
@click.pass_obj
def full(invocation: Invocation, plan: bool, tenants: tuple[str, ...]) -> int:
    return _back_up(invocation, incremental=False, plan=plan, tenants=tenants)


@command.command(
    "incremental",
    short_help="Back up what changed since the latest set.",
    help="Back up what changed since the latest set, and point at its bytes for the rest.",
    examples=("mover backup incremental --source seekdb:///srv/seekdb --dest file:///mnt/backup",),
)
@_plan
@_tenant
@click.pass_obj
def incremental(invocation: Invocation, plan: bool, tenants: tuple[str, ...]) -> int:
    return _back_up(invocation, incremental=True, plan=plan, tenants=tenants)


@command.command(
    "resume",
    short_help="Go on with a backup that was interrupted.",
    help="""Go on with a backup that the end of its --window, a crash or a destination that was away interrupted, where
it was: macro files that are at the destination are not copied again. `full` and `incremental` go on by themselves with
an interrupted one of their kind; a backup that was cancelled is gone.""",
    examples=("mover backup resume --source seekdb:///srv/seekdb --dest file:///mnt/backup",),
)
@_plan
@click.pass_obj
def resume(invocation: Invocation, plan: bool) -> int:
    return _back_up(invocation, incremental=None, plan=plan, tenants=())


@command.command(
    "cancel",
    short_help="Ask a running backup to stop.",
    help="Ask a running backup to stop, wherever it runs. It cleans up; earlier sets are not touched.",
    examples=("mover backup cancel --dest file:///mnt/backup",),
)
@click.pass_obj
def cancel(invocation: Invocation) -> int:
    from mover.cli.progress import Display
    from mover.cli.runner import run_job

    settings = invocation.settings("dest")

    async def body(_control: Control) -> Mapping[str, Any]:
        from mover.media.layout import SYS_TENANT_ID
        from mover.rootservice import backup
        from mover.rootservice.session import open_catalog

        # Not a session: a destination that is dead or hangs must not keep anybody from cancelling.
        async with open_catalog(settings) as catalog:
            return await backup.cancel(catalog, SYS_TENANT_ID)

    outcome = run_job(body, Display())
    _show(invocation, outcome.value)
    return outcome.status(DONE)


@command.command(
    "status",
    help="Show the backups that run now, and the latest set.",
    examples=("mover backup status --dest file:///mnt/backup",),
)
@click.pass_obj
def status(invocation: Invocation) -> int:
    async def body(session: Session, _control: Control) -> dict[str, Any]:
        from mover.rootservice import job_views, views

        running = (await job_views.progress(session)).as_json()["progress"]
        sets = (await views.sets(session)).as_json()["sets"]
        return {"running": running, "latest_set": sets[-1] if sets else None}

    outcome = with_session(invocation, body, need_source=False, need_keys=False, silent=True)
    entry = outcome.value
    if invocation.json:
        print_json(entry, invocation.redactor)
    else:
        from mover.cli.render import show_view

        show_view(invocation, "", {"running": entry["running"], "sets": list(filter(None, [entry["latest_set"]]))})
    return outcome.status(DONE)


def _back_up(invocation: Invocation, *, incremental: bool | None, plan: bool, tenants: tuple[str, ...]) -> int:
    async def body(session: Session, control: Control) -> SetView | BackupPlan | BackupPaused | ClusterSets:
        from mover.rootservice import backup

        if session.maybe_cluster is None:
            await _require_tenants(session, tenants)
        with control.graceful() as stop:
            return await backup.run(session, incremental=incremental, plan=plan, stop=stop, tenants=tenants)

    view = with_session(invocation, body, need_source=True).value
    _show(invocation, view.as_json())
    for warning in view.warnings:
        warn(f"warning: {warning}", invocation.redactor)
    return DONE if plan or view.restorable else PARTLY


async def _require_tenants(session: Session, tenants: tuple[str, ...]) -> None:
    """Refuse a tenant that the source has not, before anything is done for one that it has."""
    identity = await session.store.identity()
    for tenant in tenants:
        if tenant not in {str(identity.tenant_id), identity.tenant_name}:
            raise PreconditionError(
                f"the source has no tenant {tenant!r}",
                hint=f"It has tenant {identity.tenant_id}, named {identity.tenant_name!r}.",
            )


def _show(invocation: Invocation, entry: Mapping[str, Any]) -> None:
    if invocation.json:
        print_json(entry, invocation.redactor)
    elif not invocation.quiet:
        from mover.cli.render import BACKUP_FACTS, show_facts, show_view

        if any(isinstance(rows, list) for rows in entry.values()):
            show_view(invocation, "", entry)
            return
        show_facts(invocation, entry, BACKUP_FACTS)
