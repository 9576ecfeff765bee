"""Click commands with the global options built in, examples in the help, and the help in sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from mover.cli.invocation import PROMINENT, global_options


class Command(click.Command):
    """A command that takes the global options after its name, and shows ``examples``."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples
        self.globals = global_options(everything=False)
        self.own = list(self.params)
        self.params += self.globals

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        help_option = self.get_help_option(context)
        _section(context, formatter, "Options", [*self.own, *([help_option] if help_option else [])])
        _section(context, formatter, "Global options", self.globals)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("All other settings are accepted here too: see `mover --help`.")

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        _examples(formatter, self.examples)
        super().format_epilog(context, formatter)


class Group(click.Group):
    """A noun with commands below it."""

    command_class = Command

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples
        self.globals = global_options(everything=False)
        self.params += self.globals

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(context, formatter)
        _section(context, formatter, "Global options", self.globals)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        _examples(formatter, self.examples)
        super().format_epilog(context, formatter)


Group.group_class = Group


class Root(Group):
    """The program: its help lists every setting."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        for option in self.globals:
            option.hidden = False

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        prominent = {"config", "json", "quiet", *PROMINENT}
        own = [parameter for parameter in self.get_params(context) if parameter not in self.globals]
        self.format_commands(context, formatter)
        first = [option for option in self.globals if option.name in prominent]
        _section(context, formatter, "Global options", [*first, *own])
        _section(context, formatter, "Settings", [option for option in self.globals if option not in first])


def _section(
    context: click.Context, formatter: click.HelpFormatter, title: str, parameters: Sequence[click.Parameter]
) -> None:
    records = [record for record in (parameter.get_help_record(context) for parameter in parameters) if record]
    if records:
        with formatter.section(title):
            formatter.write_dl(records)


def _examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
