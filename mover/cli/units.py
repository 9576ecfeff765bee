"""How numbers are shown to people: bytes, rates, spans of time, and texts that came from elsewhere."""

from __future__ import annotations

MIB = 1 << 20


def bytes_text(count: float) -> str:
    """``1.4 GiB``: three significant digits, powers of 1024."""
    if count < 1024:
        return f"{int(count)} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if count < 999.5:
            return f"{count:.3g} {unit}" if count >= 10 else f"{count:.2f} {unit}"
    return f"{count / 1024:.2f} PiB"


def rate_text(per_second: float) -> str:
    """``83 MiB/s``."""
    return f"{bytes_text(per_second)}/s"


def span_text(seconds: float) -> str:
    """``0.42 s``, ``12.3 s``, ``4:05`` (minutes), ``2:07:09`` (hours)."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ratio_text(bytes_in: int, bytes_out: int) -> str:
    """Stored bytes per byte read, ``0.36``; a dash when nothing was read."""
    return f"{bytes_out / bytes_in:.2f}" if bytes_in else "-"


def printable(text: str) -> str:
    """The text with control characters spelled out: names from a destination must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
