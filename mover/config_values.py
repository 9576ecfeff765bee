"""How settings are spelled: sizes, durations, compression, URLs, and how they are printed again.

A parser takes what a flag, an environment variable or a TOML file gave (text, or TOML's own int, float and bool)
and returns the value, or raises ValueError with a message that completes the sentence "<option> ...".
No message repeats the value of a secret: parsers of secrets never fail, and URLs are redacted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from mover.config_secret import redact_url

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGTP])(?:i?B)?|B)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|min|h|d|w)?", re.IGNORECASE)
_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
ZSTD_LEVELS = (-7, 19)
AUTO_LEVELS = (1, 3)  # of auto without a range


def text(value: object) -> str:
    """Any non-empty text."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a non-empty text")
    return value


def secret(value: object) -> str:
    """Text that no message may repeat; TOML numbers are taken as their digits."""
    return value if isinstance(value, str) else str(value)


def path(value: object) -> Path:
    """A path of this machine; ``~`` is the home directory."""
    if isinstance(value, Path):
        return value.expanduser()
    return Path(text(value)).expanduser()


def url(value: object) -> str:
    """A URL with a scheme. What stands behind the scheme is judged by whoever opens it."""
    plain = text(value).strip()
    if not _SCHEME.match(plain):
        example = f", such as file://{plain}" if plain.startswith("/") else ", such as file:///backup"
        raise ValueError(f"must be a URL with a scheme{example}: {redact_url(plain)!r}")
    return plain


def boolean(value: object) -> bool:
    """true/false, yes/no, on/off, 1/0."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"must be true or false, not {value!r}")


def integer(low: int, high: int) -> Callable[[object], int]:
    """A whole number in ``low..high``."""

    def parse(value: object) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"must be a whole number, not {value!r}")
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}, not {number}")
        return number

    return parse


def automatic(parse: Callable[[object], int]) -> Callable[[object], int | None]:
    """``auto`` (None), or what ``parse`` takes."""
    return lambda value: None if value == "auto" else parse(value)


def format_automatic(number: int | None) -> str:
    """The other way round."""
    return "auto" if number is None else str(number)


def size(low: int, high: int = 1 << 50) -> Callable[[object], int]:
    """Bytes in ``low..high``. K, M, G, T, P count in 1024s, with or without ``iB`` or ``B``, as OceanBase does."""

    def parse(value: object) -> int:
        number = parse_size(value)
        if not low <= number <= high:
            raise ValueError(f"must be between {format_size(low)} and {format_size(high)}, not {format_size(number)}")
        return number

    return parse


def parse_size(value: object) -> int:
    """``256MiB``, ``1G``, ``8 MB``, ``4096`` as bytes. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be a size such as 256MiB or 1G, not {value!r}")
    number, unit = match.groups()
    factor = _SIZE_UNITS[(unit or "").upper()]
    return int(number) * factor if number.isdecimal() else round(float(number) * factor)


def rate(parse: Callable[[object], int]) -> Callable[[object], int]:
    """So many a second: what ``parse`` takes, with or without ``/s``; ``none`` (0) for no limit."""

    def parse_rate(value: object) -> int:
        if isinstance(value, str):
            value = value.strip().removesuffix("/s")
            if value.lower() == "none":
                return 0
        return parse(value)

    return parse_rate


def format_rate(format_number: Callable[[int], str]) -> Callable[[int | None], str]:
    """The other way round."""
    return lambda number: "none" if not number else f"{format_number(number)}/s"


def format_size(count: int) -> str:
    """The exact size in the largest unit that divides it: ``parse_size(format_size(n)) == n``."""
    for unit in ("PiB", "TiB", "GiB", "MiB", "KiB"):
        factor = _SIZE_UNITS[unit[0]]
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return f"{count}B"


def duration(low: float, high: float) -> Callable[[object], float]:
    """Seconds in ``low..high``."""

    def parse(value: object) -> float:
        seconds = parse_duration(value)
        if not low <= seconds <= high:
            raise ValueError(
                f"must be between {format_duration(low)} and {format_duration(high)}, not {format_duration(seconds)}"
            )
        return seconds

    return parse


def parse_duration(value: object) -> float:
    """``500ms``, ``15s``, ``10m``, ``1h``, ``7d`` or a plain number of seconds. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be a duration such as 500ms, 15s or 2h, not {value!r}")
    number, unit = match.groups()
    return float(number) * _SECONDS[(unit or "s").lower()]


def format_duration(seconds: float) -> str:
    """The duration in the largest unit that it is a whole multiple of, milliseconds below a second."""
    for unit in ("d", "h", "m", "s"):
        count = seconds / _SECONDS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds:g}s" if seconds >= 1 or seconds == 0 else f"{seconds * 1000:g}ms"


def cluster_name(value: object) -> str:
    """A name that becomes one directory at the destination."""
    name = text(value)
    if not _CLUSTER_NAME.fullmatch(name):
        raise ValueError(f"must be letters, digits, '_', '-' and '.', beginning with a letter or digit, not {name!r}")
    return name


def compression(value: object) -> str:
    """``none``, ``lz4``, ``zstd:<level>``, ``auto`` or ``auto:<min>..<max>``, in lower case."""
    word = text(value).strip().lower()
    compression_levels(word)
    return word


def compression_levels(word: str) -> tuple[str, int, int]:
    """What a spelling of :func:`compression` means: its kind and the zstd levels from and to. Raises ValueError."""
    if word in ("none", "lz4"):
        return word, 1, 1
    if word == "auto":
        return word, *AUTO_LEVELS
    if word == "zstd":
        raise ValueError("needs a level, such as zstd:3")
    match = re.fullmatch(r"(zstd):(-?\d{1,2})|(auto):(-?\d{1,2})\.\.(-?\d{1,2})", word)
    if match is None:
        raise ValueError(f"must be none, lz4, zstd:<level>, auto or auto:<min>..<max>, not {word!r}")
    kind, *levels = [group for group in match.groups() if group is not None]
    low, top = int(levels[0]), int(levels[-1])
    for level in (low, top):
        if level == 0 or not ZSTD_LEVELS[0] <= level <= ZSTD_LEVELS[1]:
            raise ValueError(f"has zstd levels 1 to {ZSTD_LEVELS[1]}, or -1 to {ZSTD_LEVELS[0]} for speed, not {level}")
    if low > top:
        raise ValueError(f"has its lower level first, such as auto:{top}..{low}, not {word!r}")
    return kind, low, top


def cron(value: object) -> str:
    """A cron expression: five fields, or six with seconds first."""
    # Imported by who sets one only: every command starts by reading the settings.
    from cronsim import CronSim, CronSimError

    expression = text(value).strip()
    try:
        CronSim(expression, datetime.now())
    except CronSimError as exc:
        raise ValueError(f"must be a cron expression, such as '0 1 * * SAT': {exc}: {expression!r}") from None
    return expression


def window(value: object) -> str:
    """A time of each day, ``HH:MM-HH:MM``; it may go over midnight."""
    word = text(value).strip()
    hour = r"([01]\d|2[0-3]):[0-5]\d"
    if not re.fullmatch(f"{hour}-{hour}", word) or word[:5] == word[6:]:
        raise ValueError(f"must be HH:MM-HH:MM, such as 01:00-05:00, not {word!r}")
    return word


def choice(*words: str) -> Callable[[object], str]:
    """One of ``words``, in any case."""

    def parse(value: object) -> str:
        word = str(value).strip().lower()
        if word not in words:
            raise ValueError(f"must be one of {', '.join(words)}, not {value!r}")
        return word

    return parse
