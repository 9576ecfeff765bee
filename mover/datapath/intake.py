"""What becomes of each block that a capture yields: it is in an earlier set already, or it has to be stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mover.errors import IntegrityError
from mover.repository.placement import Placement
from mover.store.base import MACRO_BLOCK_SIZE, CapturedBlock, UnchangedBlock

_REPORT_EVERY = 64  # blocks that need not be stored


@dataclass(slots=True)
class PackCounters:
    """What went through so far. ``input_bytes`` counts 2 MiB per copied block, as OceanBase does."""

    blocks: int = 0
    reused: int = 0
    input_bytes: int = 0
    read_bytes: int = 0  # used bytes that were really looked at
    output_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A block that has to be stored; ``number`` counts everything that the capture yielded."""

    number: int
    block: CapturedBlock


class Intake:
    """Sorts what a capture yields, and keeps where each block is. Of a block that comes twice the later one counts.

    Args:
        previous: placements of the set this one builds on, by block index; empty for a full.
        progress: called now and then.
    """

    def __init__(self, previous: Mapping[int, Placement], progress: Callable[[PackCounters], None]) -> None:
        self.placements: dict[int, Placement] = {}
        self.counters = PackCounters()
        self._previous = previous
        self._progress = progress
        self._number = 0
        # Block index to the number of its latest arrival. What was stored of an earlier one is not pointed at.
        self._latest: dict[int, int] = {}

    def take(self, block: CapturedBlock | UnchangedBlock) -> Arrival | None:
        """The block as something to store, or None when it is in the earlier set: its slab is back then.

        Raises IntegrityError for a block that is called unchanged and is in no earlier set.
        """
        index = block.identity.block_index
        self._number += 1
        self.counters.blocks += index not in self._latest
        self._latest[index] = self._number
        known = self._previous.get(index)
        if isinstance(block, CapturedBlock):
            self.counters.read_bytes += block.identity.used_length
            if known is None or known.digest != block.digest:
                return Arrival(self._number, block)
            # The bytes are those of the earlier set, whatever the header said on the way.
            self.placements[index] = replace(known, identity=block.identity)
            block.slab.release()
        elif known is None:
            raise IntegrityError(f"block {index} is called unchanged, but the previous set does not have it")
        else:
            self.placements[index] = known
        self.counters.reused += 1
        if self.counters.reused % _REPORT_EVERY == 0:
            self._progress(self.counters)
        return None

    def placed(self, number: int, placement: Placement) -> None:
        """The arrival of this number was stored."""
        index = placement.identity.block_index
        if self._latest[index] == number:
            self.placements[index] = placement

    def stored(self, blocks: int, bytes_written: int) -> None:
        """So many more blocks were stored; ``bytes_written`` in all."""
        self.counters.input_bytes += blocks * MACRO_BLOCK_SIZE
        self.counters.output_bytes = bytes_written
        self._progress(self.counters)
