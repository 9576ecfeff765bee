"""`mover restore`: a bootable store as it was at a moment."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mover.cli.command import Command
from mover.cli.ending import DONE
from mover.cli.invocation import Invocation
from mover.cli.job import with_session
from mover.cli.output import print_json, say
from mover.cli.times import parse_moment
from mover.errors import PreconditionError

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.rootservice.session import Session


@click.command(
    "restore",
    cls=Command,
    short_help="Write a bootable store as it was at a moment.",
    help="""Write a bootable store into an empty directory, as it was at a moment.

Every byte is checked before it is written, the log is cut exactly at the moment, and the command that boots the result
is printed. A moment outside the recoverable windows is refused, and the windows are named.

Times without a zone are in the zone of this process (TZ, else /etc/localtime); the engine's own zone may be another.
Without --until or --until-scn the store is restored as far as the archive reaches.

Of a backup that OceanBase 2.2.6x to 3.1.x made, a directory per PG is written: its macroblocks, metas and log up to the
moment, with an inventory (JSON) of each block's logical id and digest and of the log ids in each file.""",
    examples=(
        "mover restore --dest file:///mnt/backup --target /srv/restored",
        "mover restore --dest file:///mnt/backup --target /srv/restored --until '2026-11-22 10:30:00'",
        "mover restore --dest file:///mnt/backup --target /srv/restored --until '2026-11-22 02:30:00+00:00' --preview",
    ),
)
@click.option("--target", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Empty or new directory.")
@click.option(
    "--set", "set_id", type=click.IntRange(min=1), metavar="N", help="Begin with this set; else the best one."
)
@click.option("--until", metavar="TIME", help="'YYYY-MM-DD HH:MM:SS[.ffffff]', local unless it has a zone; inclusive.")
@click.option(
    "--until-scn", type=click.IntRange(min=1), metavar="N", help="The moment as an SCN (nanoseconds); inclusive."
)
@click.option("--tenant", type=click.IntRange(min=1), metavar="N", help="Of a tree that OceanBase wrote: whose backup.")
@click.option("--preview", is_flag=True, help="Say what would be read and how far it reaches; write nothing.")
@click.pass_obj
def command(
    invocation: Invocation,
    target: Path,
    set_id: int | None,
    until: str | None,
    until_scn: int | None,
    tenant: int | None,
    preview: bool,
) -> int:
    if until is not None and until_scn is not None:
        raise click.UsageError("--until and --until-scn exclude each other", click.get_current_context())
    until_us = parse_moment(until) if until is not None else None
    settings = invocation.settings("dest")

    async def body(session: Session, control: Control) -> Any:
        from mover.recovery.restore import RestoreRequest, restore

        request = RestoreRequest(
            target=target.absolute(),
            set_id=set_id,
            until_scn=until_scn,
            until_us=until_us,
            preview=preview,
            memory=settings.memory,
            concurrency=settings.concurrency,
            workers=settings.workers,
        )
        with control.graceful() as stop:
            foreign = await _foreign(session, request, tenant, stop)
            if foreign is not None:
                return foreign
            return await restore(session.repository, request, emit=session.emit, stop=stop)

    entry = with_session(invocation, body, need_source=False, need_catalog=False).value.as_json()
    _report(invocation, entry)
    return DONE


async def _foreign(session: Session, request: Any, tenant: int | None, stop: Any) -> Any:
    """The restore of a tree that OceanBase wrote; None when it is mover's own."""
    from mover.recovery.foreign_restore import ForeignRestoreRequest, foreign_tenants, restore_foreign
    from mover.repository.sets import load_infos

    if tenant is None and await load_infos(session.repository):
        return None
    tenants = await foreign_tenants(session.repository.target)
    if not tenants and tenant is None:
        return None
    wanted = ForeignRestoreRequest(
        target=request.target,
        tenant_id=tenant,
        set_id=request.set_id,
        until_scn=request.until_scn if request.until_us is None else request.until_us * 1000,
        preview=request.preview,
        concurrency=request.concurrency,
    )
    return await restore_foreign(session.repository.target, tenants, wanted, emit=session.emit, stop=stop)


def shell_line(command: list[str]) -> str:
    """The command as a line for a shell of this machine."""
    return shlex.join([_findable(command[0]), *command[1:]])


def _report(invocation: Invocation, entry: Mapping[str, Any]) -> None:
    if invocation.json:
        print_json(entry, invocation.redactor)
        return
    if not invocation.quiet:
        from mover.cli.render import RESTORE_FACTS, show_facts

        show_facts(invocation, entry, RESTORE_FACTS)
    engine = entry.get("engine_command")
    if engine:
        if not invocation.quiet:
            say("This would boot it:" if entry.get("preview") else "Boot it with:")
        # Alone on its line and unwrapped: made to be copied, and with --quiet the only line there is.
        say(shell_line([str(word) for word in engine]), invocation.redactor)


def _findable(program: str) -> str:
    """The engine as this machine's shell finds it: the wheel that brings it puts it on no PATH."""
    if shutil.which(program) is None:
        from mover.store.seekdb.server import find_engine

        try:
            return str(find_engine())
        except PreconditionError:
            pass  # no engine here: the store may be booted elsewhere
    return program
