"""Decoded records as JSON has them."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any

# A record about another file: ``path`` is the file that is being decoded.
FILE_KEY = {"path": "file"}


def jsonable(value: Any) -> Any:
    """``value`` with bytes as hex, enums by name, dataclasses and named tuples as objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: jsonable(item) for name, item in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(name): jsonable(item) for name, item in value.items()}
    return value


def named(kind: type[Enum], value: int) -> Any:
    """The name of a number, or the number when it has none."""
    try:
        return kind(value).name
    except ValueError:
        return value
