"""`mover validate`: read back and check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mover.cli.command import Command
from mover.cli.ending import DONE, INTEGRITY
from mover.cli.invocation import Invocation
from mover.cli.job import with_session
from mover.cli.output import print_json

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.rootservice.session import Session


@click.command(
    "validate",
    cls=Command,
    short_help="Read back and check every byte.",
    help="""Read back what is at the destination and check every byte of it.

Without options every set and all archived log. A flipped bit, a missing file or a broken chain is named with file and
offset, and the exit status is 5.""",
    examples=(
        "mover validate --dest file:///mnt/backup",
        "mover validate --dest file:///mnt/backup --archive --json",
        "mover validate --dest file:///mnt/backup --set 3 --sample 10",
    ),
)
@click.option("--set", "set_id", type=click.IntRange(min=1), metavar="N", help="This set and the older blocks it uses.")
@click.option("--archive", is_flag=True, help="The archived log: every block, index record and chain.")
@click.option("--all", "everything", is_flag=True, help="Every set and all archived log; the default.")
@click.option(
    "--sample",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="PCT",
    help="Read only this share of the macroblock files; all else is always read, and all of OceanBase's own trees.",
)
@click.pass_obj
def command(invocation: Invocation, set_id: int | None, archive: bool, everything: bool, sample: float | None) -> int:
    if everything and set_id is not None:
        raise click.UsageError("--all and --set exclude each other", click.get_current_context())
    settings = invocation.settings("dest")

    async def body(session: Session, control: Control) -> Any:
        from mover.encryption.given import key_sources
        from mover.recovery.validate import ValidateRequest, validate

        request = ValidateRequest(
            set_id=set_id,
            archive=archive,
            everything=everything,
            sample=sample,
            memory=settings.memory,
            concurrency=settings.concurrency,
            workers=settings.workers,
            key_sources=key_sources(settings),
        )
        with control.graceful() as stop:
            return await validate(session.repository, request, emit=session.emit, stop=stop)

    report = with_session(invocation, body, need_source=False, need_catalog=False).value
    if invocation.json:
        print_json(report.as_json(), invocation.redactor)
    elif not invocation.quiet or not report.ok:
        from mover.cli.render import show_validation

        show_validation(invocation, report.as_json())
    return DONE if report.ok else INTEGRITY
