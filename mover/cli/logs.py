"""Logging to stderr, as text or JSON lines, with secrets removed after everything else is formatted."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TextIO

from mover.cli.units import printable
from mover.config_secret import MASK, redact

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class Redactor:
    """Removes what looks like a secret, and the exact texts that are known to be one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: list[str] = []
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Texts that must not appear. Longest first: one secret may be a part of another."""
        # One or two letters would tear every message apart, and protect nothing.
        self._secrets = sorted({*self._secrets, *(s for s in secrets if len(s) > 2)}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return redact(text)


class TextFormatter(logging.Formatter):
    """``2026-11-22 10:00:00.123+00:00 warning mover.target: message``."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone().isoformat(sep=" ", timespec="milliseconds")
        text = f"{moment} {record.levelname.lower()} {record.name}: {printable(record.getMessage())}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return self._redactor(text)


class JsonFormatter(logging.Formatter):
    """One object per line: time, level, logger, message, what ``extra`` gave, and a traceback."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(_redacted(entry, self._redactor), default=str)


def _redacted(value: Any, redactor: Redactor) -> Any:
    """Redact inside the values: doing it on the JSON text could eat a quote and break the line."""
    if isinstance(value, str):
        return redactor(value)
    if isinstance(value, dict):
        # A key and its value are judged together, as they would be in a text.
        pairs = ((str(key), _redacted(item, redactor)) for key, item in value.items())
        return {k: MASK if isinstance(v, str) and redact(f"{k}={v}") != f"{k}={v}" and v else v for k, v in pairs}
    if isinstance(value, list | tuple):
        return [_redacted(item, redactor) for item in value]
    return value if isinstance(value, int | float | bool | None) else redactor(str(value))


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever ``sys.stderr`` is now: the live display puts itself in between while it is up."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def set_up(level: str, form: str, redactor: Redactor) -> None:
    """Point the root logger at stderr. Called once per process."""
    handler = StderrHandler()
    handler.setFormatter(JsonFormatter(redactor) if form == "json" else TextFormatter(redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries repeat whole requests, signed headers included, when they may say more than errors.
    root.setLevel(logging.ERROR)
    logging.getLogger("mover").setLevel(level.upper())
    logging.captureWarnings(True)
