"""The program: its commands, and how every kind of ending becomes an exit status and an error on the right stream."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from mover import __version__
from mover.cli import (
    archivelog,
    backup,
    bench,
    catalog,
    configuration,
    copy,
    demo,
    doctor,
    inspect,
    key,
    logs,
    restore,
    serve,
    show,
    sim,
    sweep,
    throttle,
    validate,
)
from mover.cli.command import Root
from mover.cli.ending import DONE, SIGNAL, USAGE, Interrupted
from mover.cli.invocation import Invocation
from mover.cli.output import print_error, print_json
from mover.errors import ConfigError, MoverError

_log = logging.getLogger("mover.cli")

_HELP = """Physical backup, log archiving and point-in-time restore for OceanBase stores.

The log is archived without a break (`mover archivelog`), data backups are taken while the database runs
(`mover backup`), and a store is rebuilt as it was at any moment between (`mover restore`).

Every setting may be a flag, a MOVER_* variable or a line of the TOML file, in this order; `mover config show --origin`
says which one it was. Sizes are 256MiB or 1G, durations 500ms, 15s or 2h.

Exit status: 0 done, 1 failed, 2 usage or configuration, 3 finished but partly, 4 refused and nothing done,
5 integrity violation, 6 cancelled, 7 source or destination unreachable, 130/143 interrupted.
"""


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    if context.ensure_object(Invocation).json:
        print_json({"version": __version__})
    else:
        click.echo(f"mover {__version__}")
    context.exit()


@click.group(
    cls=Root,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    examples=(
        "mover demo",
        "mover archivelog start --source seekdb:///srv/seekdb --dest file:///mnt/backup",
        "mover --config mover.toml backup full",
        "mover restore --dest file:///mnt/backup --target /srv/restored --until '2026-11-22 10:30:00'",
    ),
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
def mover() -> None:
    """See _HELP."""


for _module in (
    demo,
    archivelog,
    backup,
    restore,
    validate,
    show,
    inspect,
    copy,
    doctor,
    sweep,
    throttle,
    serve,
    key,
    catalog,
    sim,
    bench,
    configuration,
):
    mover.add_command(_module.command)


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit status. Prints results and errors; raises nothing that is an Exception."""
    invocation = Invocation()
    # Known before the line is parsed, because not parsing is an ending too.
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    invocation.json = "--json" in own
    logs.set_up("warning", "text", invocation.redactor)
    try:
        status = _dispatch(list(arguments), invocation)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output is gone: leave quietly, and keep the interpreter from flushing into the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGNAL + 13
    except KeyboardInterrupt:
        return SIGNAL + 2
    return status


def _dispatch(arguments: list[str], invocation: Invocation) -> int:
    def fail(error: MoverError, kind: str | None = None) -> int:
        print_error(error, invocation.redactor, as_json=invocation.json, kind=kind)
        return error.exit_code

    try:
        with mover.make_context("mover", arguments, obj=invocation) as context:
            result: Any = mover.invoke(context)
            return result if isinstance(result, int) else DONE
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.exceptions.NoArgsIsHelpError as ending:
        if invocation.json:
            return fail(ConfigError("no command is given", hint=_see_help(ending.ctx)), "UsageError")
        click.echo(ending.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        return fail(ConfigError(_plain(error.format_message()), hint=_see_help(error.ctx)), "UsageError")
    except click.Abort:
        return SIGNAL + 2
    except Interrupted as ending:
        if ending.error is not None:
            fail(ending.error)
        return SIGNAL + ending.signal
    except MoverError as error:
        _log.debug("%s", error, exc_info=error)
        return fail(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        _log.debug("unexpected system error", exc_info=error)
        place = f": {error.filename}" if error.filename else ""
        return fail(MoverError(f"{(error.strerror or str(error)).lower()}{place}"), "OSError")
    except Exception as error:
        _log.error("a defect of mover", exc_info=error)
        hint = "This is a defect of mover: please report it with the traceback above."
        return fail(MoverError(f"unexpected {type(error).__name__}: {error}", hint=hint), "InternalError")


def _plain(sentence: str) -> str:
    """Click's sentence in the form of our messages: lower case, no full stop."""
    sentence = sentence.strip().rstrip(".")
    return sentence[:1].lower() + sentence[1:]


def _see_help(context: click.Context | None) -> str:
    return f"See `{context.command_path if context else 'mover'} --help`."
