"""What a synthetic cluster is asked to be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mover.errors import PreconditionError


@dataclass(frozen=True, slots=True)
class Plan:
    """Size and shape of a cluster; sizes in bytes.

    ``blocks`` is the number of macro blocks in the majors of a PG, ``block_size`` what a full one occupies.
    ``log_size`` is the log that each generation writes on the busiest server, ``entry_size`` the mean of a log's body.
    ``clog_fill`` is the position at which a clog file is finished at the latest: with less than a real file holds there
    are many finished files and little data. ``ilog_cursors`` is the number of cursors after which an ilog file is full.
    ``recycled``: the clog files were others before. ``spare`` is the number of free blocks a block_file begins and
    grows with: few of them, and freed blocks are soon used again; 0 leaves room for long. ``sys_pgs`` belong to the sys
    tenant, whose log is in the clogs too and is never archived.
    """

    seed: int
    observers: int = 3
    tenants: int = 1
    pgs: int = 4
    blocks: int = 4
    block_size: int = 2 << 20
    log_size: int = 4 << 20
    entry_size: int = 2048
    clog_fill: int = 1 << 26
    ilog_cursors: int = 20_000
    recycled: bool = True
    spare: int = 0
    sys_pgs: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("observers", 1, 999),
            ("tenants", 1, 9_000),
            ("pgs", 1, 1_000_000),
            ("blocks", 1, 1_000_000),
            ("block_size", 8 << 10, 2 << 20),
            ("log_size", 0, 1 << 44),
            ("entry_size", 64, 1 << 20),
            ("clog_fill", 64 << 10, 1 << 26),
            ("spare", 0, 1 << 20),
            ("sys_pgs", 0, 100),
            ("ilog_cursors", 16, 1 << 20),
        ):
            if not low <= getattr(self, name) <= high:
                raise PreconditionError(f"{name} of a synthetic cluster must be from {low} to {high}")
        if self.pgs < self.tenants:
            raise PreconditionError("a synthetic cluster has at least one PG for each tenant")

    def record(self) -> dict[str, Any]:
        return asdict(self)
