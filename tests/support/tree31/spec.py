"""What a tree is asked to be."""

from __future__ import annotations

from dataclasses import dataclass

LAYOUTS = ("2.2.6", "3.1.0", "3.1.5")
"""2.2.6: macro files directly below the PG. 3.1.0: majors and minors apart. 3.1.5: a directory per backup, pieces."""

ROOT = "ob31/7/incarnation_1"
CLUSTER_NAME, CLUSTER_ID = "ob31", 7
FIRST_TENANT = 1001
US = 1_650_000_000_000_000
DAY = 86_400_000_000
PIECE_US = 3_600_000_000


@dataclass(frozen=True)
class TreeSpec:
    """``sets``: what each backup was, oldest first: full, inc, failed (nothing but its entry), doing (unfinished).

    ``logs`` is the number of logs per PG and piece; ``per_file`` of macro blocks in a macro file;
    ``blocks_per_file`` of archive blocks in a data file. ``invalid_record``: a leader left a data file of no use. With
    ``retries`` each PG's major index was begun by one attempt and ended by the next, in a file of its own, and a later
    task wrote the metas of some PGs again.
    """

    seed: int = 1
    layout: str = "3.1.0"
    tenants: int = 2
    pgs: int = 3
    blocks: int = 5
    block_size: int = 12 << 10
    per_file: int = 3
    sets: tuple[str, ...] = ("full", "inc", "failed", "inc")
    rounds: int = 2
    pieces: int = 2
    logs: int = 40
    blocks_per_file: int = 3
    invalid_record: bool = True
    retries: bool = False

    @property
    def later(self) -> bool:
        return self.layout == "3.1.5"

    @property
    def compatible(self) -> int:
        return {"2.2.6": 1, "3.1.0": 2, "3.1.5": 4}[self.layout]


def date_of(timestamp: int) -> int:
    """yyyymmdd of a time in µs, UTC."""
    from datetime import UTC, datetime

    return int(datetime.fromtimestamp(timestamp / 1e6, UTC).strftime("%Y%m%d"))
