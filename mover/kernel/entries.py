"""What ``walk_entries`` answers: shared by both twins."""

from __future__ import annotations

from typing import NamedTuple


class EntryRun(NamedTuple):
    """Log entries of one PG that hold, and whose ids follow each other."""

    first_log_id: int
    last_log_id: int
    entries: int
    accum: int
    """The running checksum behind the last of them."""
