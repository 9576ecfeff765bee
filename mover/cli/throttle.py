"""`mover throttle`: the limits that running processes keep to."""

from __future__ import annotations

import click

from mover.cli.command import Command
from mover.cli.ending import DONE
from mover.cli.invocation import Invocation
from mover.cli.output import print_json, say


@click.command(
    "throttle",
    cls=Command,
    short_help="Change the limits of what runs now.",
    help="""Change how fast the mover processes of this host may use the destination, while they run.

--rate-limit and --request-limit hold for all of them together from their next request on, and until the last of them
has ended; `none` lifts a limit. Without either the limits in force are shown.""",
    examples=(
        "mover throttle --dest file:///mnt/backup --rate-limit 50MB/s",
        "mover throttle --dest file:///mnt/backup --rate-limit none --request-limit 100/s",
    ),
)
@click.pass_obj
def command(invocation: Invocation) -> int:
    from mover.config_values import format_rate, format_size
    from mover.errors import PreconditionError
    from mover.rootservice.state import join_pace

    settings = invocation.settings("dest")
    pace = join_pace(settings)
    try:
        if pace.alone and (settings.rate_limit is not None or settings.request_limit is not None):
            raise PreconditionError(
                "no mover process of this host uses the destination now",
                hint="give --rate-limit to the command that is to be limited",
            )
        data, requests = (int(limit) for limit in pace.limits)
    finally:
        pace.close()
    if invocation.json:
        print_json({"rate_limit": data or None, "request_limit": requests or None}, invocation.redactor)
    elif not invocation.quiet:
        say(f"rate limit {format_rate(format_size)(data)}, request limit {format_rate(str)(requests)}")
    return DONE
