"""One run of the command line: the global options, wherever they stood, and the settings they lead to.

Global options are accepted before and after every command. Each of them only notes its value here; the one that
stands later in the line wins.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import click

from mover import config, config_values
from mover.cli import logs
from mover.config_secret import environment_secrets, redact_url
from mover.errors import ConfigError

# What a person meets first; the other settings are accepted everywhere and listed by `mover --help`.
PROMINENT = ("source", "dest", "catalog", "log_level", "log_format")


class Invocation:
    """What the flags said so far, and the settings once somebody asks."""

    def __init__(self) -> None:
        self.flags: dict[str, object] = {}
        self.config_file: str | None = None
        self.json = False
        self.quiet = False
        self.redactor = logs.Redactor()
        self._settings: config.Settings | None = None

    def settings(self, *needed: str) -> config.Settings:
        """The settings; the first call also sets up logging.

        Args:
            needed: option names that must have a value.

        Raises:
            ConfigError: something does not parse, or a needed option is missing.
        """
        if self._settings is None:
            self._settings = self._load()
        for name in needed:
            if getattr(self._settings, name) is None:
                option = next(option for option in config.OPTIONS if option.name == name)
                raise ConfigError(
                    f"no {name} is given",
                    hint=f"Say {option.flag} URL, or set {option.env} or {option.toml!r} in the file.",
                )
        return self._settings

    def file(self) -> str | None:
        """The configuration file in use."""
        found = config.find_file(self.config_file, os.environ)
        return str(found) if found else None

    def _load(self) -> config.Settings:
        settings = config.load(self.flags, os.environ, config.find_file(self.config_file, os.environ))
        self.redactor.add([*settings.secrets(), *environment_secrets(os.environ)])
        logs.set_up(settings.log_level, settings.log_format, self.redactor)
        log = logging.getLogger("mover.cli")
        for name, near in config.unknown_variables(os.environ):
            log.warning("nothing reads the variable %s%s", name, f"; did you mean {near}?" if near else "")
        for name, value in self.flags.items():
            if isinstance(value, str) and redact_url(value) != value:
                log.warning("--%s holds a secret, and others can read a command line; use MOVER_%s", name, name.upper())
        return settings


def _note(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        # None means that this place of the line did not say it; an earlier place may have.
        if value is None or context.resilient_parsing:
            return
        invocation = context.ensure_object(Invocation)
        if name in {"json", "quiet", "config_file"}:
            setattr(invocation, name, value)
        else:
            invocation.flags[name] = value

    return callback


def _option(declaration: str, name: str, help: str, **attributes: Any) -> click.Option:
    return click.Option([declaration], default=None, expose_value=False, callback=_note(name), help=help, **attributes)


def global_options(*, everything: bool) -> list[click.Option]:
    """Fresh global options for one command; the less common ones hidden from its help unless ``everything``."""
    options = [
        _option(
            "--config", "config_file", "TOML file; else $MOVER_CONFIG, else /etc/mover/mover.toml.", metavar="FILE"
        ),
        _option("--json", "json", "One JSON object (JSON lines for a stream) on stdout, nothing else.", is_flag=True),
        _option("--quiet", "quiet", "No progress and no summary; errors only.", is_flag=True),
    ]
    for row in config.OPTIONS:
        if row.flag is None:
            continue
        hidden = not everything and row.name not in PROMINENT
        if row.parse is config_values.boolean:
            declaration = f"{row.flag}/--no-{row.flag.removeprefix('--')}"
            options.append(_option(declaration, row.name, row.help, hidden=hidden))
        else:
            options.append(_option(row.flag, row.name, row.help, metavar=row.metavar, hidden=hidden))
    return options
