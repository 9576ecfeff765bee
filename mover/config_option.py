"""What a row of the table of options is, and where a value of it came from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mover import config_values as values


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table."""

    name: str  # the attribute of Settings
    parse: Callable[[object], Any]
    default: Callable[[Mapping[str, str]], Any]
    toml: str  # dotted key in the file
    metavar: str  # what stands for the value in the help
    help: str
    secret: bool = False  # never shown, and never a flag: argv is public
    show: Callable[[Any], str] = str

    @property
    def env(self) -> str:
        return f"MOVER_{self.name.upper()}"

    @property
    def flag(self) -> str | None:
        return None if self.secret else "--" + self.name.replace("_", "-")

    def text(self, value: Any) -> str:
        """A value of it as people read it; "-" for none."""
        nothing = value is None and self.show is not values.format_automatic
        return "-" if nothing else self.show(value)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: ``flag``, ``environment``, ``file`` or ``default``, and the exact place."""

    kind: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.place}".rstrip()


def row(
    parse: Callable[[object], Any],
    default: Any,
    metavar: str,
    help: str,
    *,
    toml: str | None = None,
    secret: bool = False,
    show: Callable[[Any], str] = str,
) -> Any:
    """A field of Settings that is a row of the table. ``default`` may be a function of the environment."""
    make = default if callable(default) else lambda _env: default
    cells = {"parse": parse, "default": make, "toml": toml, "metavar": metavar, "help": help}
    metadata = {"option": {**cells, "secret": secret, "show": show}}
    return field(default_factory=lambda: make(os.environ), metadata=metadata)
