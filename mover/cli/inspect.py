"""`mover inspect`: decode any media file or tree."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from mover.cli.command import Command
from mover.cli.ending import DONE, INTEGRITY
from mover.cli.invocation import Invocation
from mover.cli.output import print_json, say
from mover.cli.units import bytes_text
from mover.config_secret import redact_url, url_secrets

if TYPE_CHECKING:
    from mover.cli.runner import Control


@click.command(
    "inspect",
    cls=Command,
    short_help="Decode a media file or a whole tree.",
    help="""Decode a file of a backup tree, or every file below a directory.

PATH is a local path, a URL, or with --dest a path below the destination. One line per file says what it is;
--records shows each record in it, --tree only what the names of the files say: clusters, tenants, backup sets, rounds,
pieces and PGs. Trees that OceanBase 2.2.6x to 3.1.x wrote are known like mover's own. What does not decode is named
with its offset, and the exit status is 5.""",
    examples=(
        "mover inspect /mnt/backup/seekdb/1/incarnation_1/1/data/tenant_data_backup_info",
        "mover inspect s3://bucket/backup --records --json",
        "mover inspect file:///mnt/backup --tree",
    ),
)
@click.argument("path", metavar="URL-OR-PATH")
@click.option("--records", is_flag=True, help="Every record of every file; with --json one line each.")
@click.option("--tree", is_flag=True, help="Clusters, tenants, sets, rounds, pieces and PGs by name; nothing is read.")
@click.pass_obj
def command(invocation: Invocation, path: str, records: bool, tree: bool) -> int:
    if records and tree:
        raise click.UsageError("--records and --tree exclude each other", click.get_current_context())
    invocation.redactor.add(url_secrets(path))
    if redact_url(path) != path and "://" in path:
        invocation.settings()
        logging.getLogger("mover.cli").warning(
            "the URL holds a secret, and others can read a command line; use the environment of the store"
        )
    if tree:
        return _tree(invocation, path)
    from mover.cli.progress import Display
    from mover.cli.runner import run_job

    settings = invocation.settings()
    files: list[dict[str, Any]] = []
    damaged = False

    async def body(_control: Control) -> None:
        from mover.recovery.inspect import inspect_path

        nonlocal damaged
        async for entry in inspect_path(settings, path, records=records):
            damaged = damaged or "error" in entry or entry.get("ok") is False
            if not invocation.json:
                _say(invocation, entry)
            elif records:
                print_json(entry, invocation.redactor)
            else:
                files.append(entry)

    outcome = run_job(body, Display())
    if invocation.json and not records:
        print_json({"files": files}, invocation.redactor)
    return outcome.status(INTEGRITY if damaged else DONE)


def _tree(invocation: Invocation, path: str) -> int:
    from mover.cli.progress import Display
    from mover.cli.runner import run_job

    settings = invocation.settings()

    async def body(_control: Control) -> dict[str, Any]:
        from mover.recovery.inspect import inspect_tree

        return await inspect_tree(settings, path)

    outcome = run_job(body, Display())
    if invocation.json:
        print_json(outcome.value, invocation.redactor)
        return outcome.status(DONE)
    for cluster in outcome.value["clusters"]:
        for tenant in cluster["tenants"]:
            who = f"cluster {cluster['cluster_name']}/{cluster['cluster_id']}, tenant {tenant['tenant_id']}"
            say(f"{who}: {len(tenant['pgs'])} PGs", invocation.redactor)
            for found in tenant["sets"]:
                backups = ", ".join(map(str, found["backups"]))
                line = f"  set {found['backup_set_id']} ({found['layout']}): backups {backups},"
                say(f"{line} {found['pg_count']} PGs, {bytes_text(found['bytes'])}", invocation.redactor)
            for found in tenant["rounds"]:
                for piece in found["pieces"]:
                    name = f"piece {piece['piece']} of {piece['date']}, " if piece["piece"] else ""
                    line = f"  round {found['round']}: {name}{piece['pg_count']} PGs, {bytes_text(piece['bytes'])}"
                    say(line, invocation.redactor)
    if not outcome.value["clusters"]:
        say("no backup tree", invocation.redactor)
    return outcome.status(DONE)


def _say(invocation: Invocation, entry: dict[str, Any]) -> None:
    head = " ".join(str(entry[key]) for key in ("path", "offset", "kind") if entry.get(key) is not None)
    # Where the path says it is and what --records shows in full would only make the line long.
    known = {"path", "offset", "kind", "place", "content"}
    rest = {key: value for key, value in entry.items() if key not in known and value is not None}
    say(
        ": ".join(filter(None, (head, ", ".join(f"{key}={value}" for key, value in rest.items())))), invocation.redactor
    )
