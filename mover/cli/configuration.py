"""`mover config`: what is set, and where it came from."""

from __future__ import annotations

from typing import Any

import click

from mover import config
from mover.cli.command import Group
from mover.cli.invocation import Invocation
from mover.cli.output import print_json


@click.group("config", cls=Group, help="Look at the configuration.", examples=("mover config show --origin",))
def command() -> None:
    """See help."""


@command.command(
    "show",
    help="Every setting with its value; secrets are masked.",
    examples=("mover config show --origin", "mover --config mover.toml config show --json"),
)
@click.option("--origin", is_flag=True, help="Say where each value came from: flag, environment, file or default.")
@click.pass_obj
def show(invocation: Invocation, origin: bool) -> None:
    settings = invocation.settings()
    values, origins = settings.as_dict(redacted=True), settings.origins()
    if invocation.json:
        answer: dict[str, Any] = {"file": invocation.file(), "settings": values}
        if origin:
            answer["origins"] = {name: {"kind": o.kind, "place": o.place or None} for name, o in origins.items()}
        print_json(answer, invocation.redactor)
        return
    from mover.cli.render import show_table

    rows = []
    for option in config.OPTIONS:
        value = getattr(settings, option.name)
        shown = values[option.name] if option.secret and value is not None else option.text(value)
        rows.append([option.toml, str(shown), *([str(origins[option.name])] if origin else [])])
    show_table(invocation, "", ["key", "value", *(["origin"] if origin else [])], rows)
