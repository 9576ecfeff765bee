"""The two streams: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mover.cli.units import printable
from mover.errors import MoverError


def _as_is(text: str) -> str:
    return text


def print_json(value: Mapping[str, Any], redact: Callable[[str], str] = _as_is) -> None:
    """One object on one line of stdout, secrets removed from every text in it."""
    print(json.dumps(_clean(value, redact), ensure_ascii=False), flush=True)


def print_error(error: MoverError, redact: Callable[[str], str], *, as_json: bool, kind: str | None = None) -> None:
    """The error: ``{"error": {...}}`` on stdout with ``as_json``, else ``error:`` and ``hint:`` lines on stderr."""
    if as_json:
        entry = error.as_json()
        print_json({"error": entry | {"kind": kind or entry["kind"]}}, redact)
        return
    number = f" ({error.code})" if error.code is not None else ""
    print(f"error: {redact(printable(error.message))}{number}", file=sys.stderr)
    if error.hint:
        print(f"hint: {redact(printable(error.hint))}", file=sys.stderr)


def say(line: str, redact: Callable[[str], str] = _as_is) -> None:
    """A line for a person, on stdout."""
    print(redact(printable(line)), flush=True)


def warn(line: str, redact: Callable[[str], str] = _as_is) -> None:
    """A line for a person that is not the result, on stderr."""
    print(redact(printable(line)), file=sys.stderr, flush=True)


def _clean(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {str(key): _clean(item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, redact) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    return redact(str(value))
