"""`mover copy`: a verified second copy of a backup tree."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import click

from mover.cli.command import Command
from mover.cli.ending import DONE, PARTLY
from mover.cli.invocation import Invocation
from mover.cli.job import display_for
from mover.cli.output import print_json, say
from mover.cli.units import bytes_text
from mover.config_secret import redact_url, url_secrets

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.recovery.copy import CopyReport


@click.command(
    "copy",
    cls=Command,
    short_help="Make a verified second copy of a backup tree.",
    help="""Copy a backup tree to another place: mover's own, or one that OceanBase wrote (a backup of the backup).

SRC and DST are URLs as --dest has them: from NFS to an object store and back. Every file is verified on the way (by
the manifest's digest, or its own checksums) and proven at DST; what makes sets and rounds visible is published last.
A round that is being archived is copied up to its checkpoint. Run again, the copy goes on where it was, and brings what
is new. Sets that DST has and SRC does not have any more stay.

Without --set and --archive everything is copied: all complete sets and all archived log. When something is damaged at
SRC nothing is published and the exit status is 5; with --skip-damaged the sets that are whole are published, damaged
log goes along as it is, and the status is 3.""",
    examples=(
        "mover copy file:///mnt/backup 's3://second/backup?endpoint=http://127.0.0.1:8333' --plan",
        "mover copy file:///mnt/backup oss://bucket/backup --set 3 --archive",
    ),
)
@click.argument("src", metavar="SRC")
@click.argument("dst", metavar="DST")
@click.option(
    "--set", "sets", type=click.IntRange(min=1), metavar="N", multiple=True, help="This set and those it builds on."
)
@click.option("--archive", is_flag=True, help="The archived log.")
@click.option("--skip-damaged", is_flag=True, help="Publish what is whole when something is damaged at SRC.")
@click.option("--plan", is_flag=True, help="Say what would be copied; copy nothing.")
@click.pass_obj
def command(
    invocation: Invocation,
    src: str,
    dst: str,
    sets: tuple[int, ...],
    archive: bool,
    skip_damaged: bool,
    plan: bool,
) -> int:
    from mover.cli.runner import run_job

    invocation.redactor.add([*url_secrets(src), *url_secrets(dst)])
    settings = invocation.settings()
    for name, url in (("SRC", src), ("DST", dst)):
        if redact_url(url) != url:
            logging.getLogger("mover.cli").warning(
                "%s holds a secret, and others can read a command line; use the environment of the store", name
            )
    display = display_for(invocation)

    async def body(control: Control) -> CopyReport:
        from mover.recovery.copy import CopyRequest, copy
        from mover.recovery.copy_plan import Selection
        from mover.rootservice.copying import open_pair

        request = CopyRequest(
            selection=Selection(frozenset(sets), archive),
            skip_damaged=skip_damaged,
            plan=plan,
            memory=settings.memory,
            concurrency=settings.concurrency,
        )
        async with open_pair(dataclasses.replace(settings, dest=dst), src, plan=plan) as (one, other):
            with control.graceful() as stop:
                return await copy(one, other, request, emit=display.emit, stop=stop)

    outcome = run_job(body, display)
    report = outcome.value
    if invocation.json:
        print_json(report.as_json(), invocation.redactor)
    elif not invocation.quiet or not report.ok:
        _show(invocation, report.as_json())
    return outcome.status(DONE if report.ok else PARTLY)


def _show(invocation: Invocation, report: dict[str, Any]) -> None:
    from mover.cli.render import show_view

    if report["violations"]:
        show_view(invocation, "violations", {"violations": report["violations"]})
    names = [f"set {found['backup_set_id']} of tenant {found['tenant_id']}" for found in report["sets"]]
    names += [f"round {found['round']} of tenant {found['tenant_id']}" for found in report["rounds"]]
    what = ", ".join(names) or "nothing"
    if report["plan"]:
        there = f"{report['files_there']} files are there, {report['files_to_compare']} to be compared"
        say(f"would copy {report['files']} files, {bytes_text(report['bytes'])}; {there}", invocation.redactor)
        say(f"would publish {what}", invocation.redactor)
        return
    say(f"copied {report['copied_files']} files, {bytes_text(report['copied_bytes'])}", invocation.redactor)
    say(f"published {what}", invocation.redactor)
    for found in report["skipped_sets"]:
        say(f"left out set {found['backup_set_id']} of tenant {found['tenant_id']}: damaged", invocation.redactor)
    for note in report["notes"]:
        say(f"note: {note}", invocation.redactor)
