"""`mover doctor`: try what a backup will do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mover.cli.command import Command
from mover.cli.ending import DONE
from mover.cli.invocation import Invocation
from mover.cli.output import print_json, say
from mover.config_secret import redact_url
from mover.errors import ConfigError, PreconditionError

if TYPE_CHECKING:
    from mover.cli.runner import Control
    from mover.rootservice.doctor_checks import Check, Examination


@click.command(
    "doctor",
    cls=Command,
    short_help="Try what a backup will do, and say what will not work.",
    help="""Examine the source and the destination, whichever are given: sign-in, clocks, what is listed after it was
written, names that are written once, files in parts, deletes, throughput, room, mount options, log retention; of an
object store also how it is addressed, its checksums, its conditions and its limits. Each check is shown as it ends.

What it writes goes below .mover-doctor at the destination, and is removed. The exit status is 4 when a backup would be
refused or could not be relied upon; what to do stands below each check.

--save writes what was found of an object store as a profile: profile=FILE in the URL then goes by it.""",
    examples=(
        "mover doctor --source seekdb:///srv/seekdb --dest file:///mnt/backup",
        "mover doctor --dest 's3://bucket/backup?endpoint=http://127.0.0.1:8333' --seconds 10 --json",
        "mover doctor --dest 's3://bucket/backup?endpoint=https://store.example.com' --save /etc/mover/store.toml",
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
@click.option(
    "--save",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the profile of the object store that was found.",
)
@click.pass_obj
def command(invocation: Invocation, seconds: float, save: Path | None) -> int:
    from mover.cli.progress import Display
    from mover.cli.runner import run_job

    settings = invocation.settings()
    if settings.source is None and settings.dest is None:
        raise ConfigError("nothing to examine", hint="name --source, --dest or both")
    if save is not None and (settings.dest is None or settings.dest.startswith("file:")):
        raise ConfigError("--save is for object stores", hint="name one with --dest, or leave --save out")
    told = _Rows(invocation)

    async def body(_control: Control) -> Examination:
        from mover.rootservice.doctor import examine

        return await examine(settings, seconds=seconds, on_check=told.add)

    found: Any = run_job(body, Display()).value
    saved: dict[str, str] = {}
    if save is not None and found.profile is not None:
        from mover.target.profile_file import write_profile

        assert settings.dest is not None
        write_profile(save, found.profile, f"What `mover doctor` found at {redact_url(settings.dest)}.")
        saved = {"saved": str(save.absolute())}
    if invocation.json:
        print_json({**found.as_json(), **saved}, invocation.redactor)
    elif saved and not invocation.quiet:
        say(f"profile written: use profile={saved['saved']} in the URL", invocation.redactor)
    return DONE if found.ok else PreconditionError.exit_code


class _Rows:
    """A row as each check ends: somebody waits, and the last ones take seconds."""

    def __init__(self, invocation: Invocation) -> None:
        self._redactor = invocation.redactor
        self._shown = not invocation.json and not invocation.quiet
        self._any = False

    def add(self, check: Check) -> None:
        if not self._shown:
            return
        if not self._any:
            say(_row("", "check", "state", "found"))
        self._any = True
        say(_row(check.subject, check.name, str(check.state), check.detail), self._redactor)
        if check.advice:
            say(_row("", "", "", f"-> {check.advice}"), self._redactor)


def _row(subject: str, name: str, state: str, detail: str) -> str:
    return f"{subject:<12} {name:<12} {state:<6} {detail}".rstrip()
