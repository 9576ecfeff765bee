"""A profile in a file: what `mover doctor --save` found of a store, and `profile=/path/to/file` in a URL uses.

TOML with one line for each field of :class:`mover.target.profiles.Profile`. Lines may be changed by hand; those that
are left out are the generic profile's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from pathlib import Path
from typing import Any

from mover.errors import ConfigError
from mover.target.profiles import CONFIRMATIONS, PROFILES, Profile

_CHOICES = {
    "name": tuple(PROFILES),
    "device_type": ("S3", "OSS", "COS"),
    "addressing": ("virtual", "path", "cname"),
    "exclusive": ("IfNoneMatch", "ForbidOverwrite", "ForbidOverwriteCOS"),
    "signature": ("s3v4", "s3"),
}
_FIELDS = {field.name: field for field in dataclasses.fields(Profile)}


def profile_text(profile: Profile, comment: str) -> str:
    """The file. ``comment`` is what stands at its top, without '#'."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for name in _FIELDS:
        value = getattr(profile, name)
        if value is not None:
            # JSON's texts, numbers, lists and booleans are TOML's.
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def write_profile(file: Path, profile: Profile, comment: str) -> None:
    """Write the file, whole or not at all. Raises ConfigError."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(profile_text(profile, comment), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"the profile can not be written to {file}: {(error.strerror or 'i/o error').lower()}",
            hint="name a file in a directory that this user can write to",
        ) from error


def read_profile(file: str) -> Profile:
    """The profile in ``file``. Raises ConfigError, which names the line that can not be used."""
    try:
        found = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise _bad(file, f"can not be read: {(error.strerror or 'i/o error').lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise _bad(file, "is not TOML") from None
    base = PROFILES.get(str(found.get("name")), PROFILES["generic"])
    values: dict[str, Any] = {}
    for name, value in found.items():
        if name not in _FIELDS:
            raise _bad(file, f"has a key that no profile has: {name}")
        values[name] = _value(file, name, value, getattr(base, name))
    return dataclasses.replace(base, **values)


def _value(file: str, name: str, value: Any, like: Any) -> Any:
    if name in _CHOICES and value not in _CHOICES[name]:
        raise _bad(file, f"has {name} = {value!r}; known are {', '.join(_CHOICES[name])}")
    if name == "confirm":
        if not isinstance(value, list) or not value or not set(map(str, value)) <= set(CONFIRMATIONS):
            raise _bad(file, f"has {name} = {value!r}; it is a list of {', '.join(CONFIRMATIONS)}")
        return tuple(value)
    kind = str if like is None else type(like)
    positive = not isinstance(value, int) or isinstance(value, bool) or value > 0
    if type(value) is not kind or not positive:
        raise _bad(file, f"has {name} = {value!r}, where a {kind.__name__} is wanted")
    return value


def _bad(file: str, how: str) -> ConfigError:
    return ConfigError(f"profile {file} {how}", hint="have `mover doctor --save FILE` write one")
