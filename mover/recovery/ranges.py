"""Which ranges of a macro file to read, to have some of its frames. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mover.repository.placement import Placement

# A request costs about as much as this many bytes do: less between two frames is read through.
REQUEST_COST = 1 << 20
# Reading less than the whole file gives up its own digest, so it has to be worth it.
WORTH_IT = 4  # at least this part of the file: a fourth
WORTH_A_LOOK = 8 << 20


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a file that are read at once; whole frames, ascending, or none: bytes that the index does not name."""

    start: int
    length: int
    frames: tuple[Placement, ...] = ()

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class RangePlan:
    """The ranges of one file, ascending. ``whole``: they are the file from its first byte to its last."""

    ranges: tuple[Range, ...]
    whole: bool

    @property
    def bytes(self) -> int:
        return sum(part.length for part in self.ranges)


def plan_ranges(size: int, frames: Sequence[Placement], limit: int, *, everything: bool = False) -> RangePlan:
    """Plan the reading of one file.

    Args:
        size: of the file, bytes.
        frames: those that are wanted, ascending by offset; apart, inside the file and none longer than ``limit``.
        limit: of a range, bytes.
        everything: read the whole file, whatever it costs.

    When most of the file is wanted, all of it is read, in ranges that end where frames do, so that its own digest can
    be verified. Else only the frames are, and what is not worth another request between them.
    """
    needed = tuple(_join(frames, limit, REQUEST_COST))
    saved = size - sum(part.length for part in needed)
    if not everything and saved >= WORTH_A_LOOK and saved * WORTH_IT >= size:
        return RangePlan(needed, whole=False)
    return RangePlan(tuple(_fill(size, _join(frames, limit, 0), limit)), whole=True)


def _join(frames: Sequence[Placement], limit: int, between: int) -> Iterator[Range]:
    """Frames in as few ranges as ``limit`` allows, with at most ``between`` bytes between two of a range."""
    run: list[Placement] = []
    for frame in frames:
        if run:
            end = run[-1].offset + run[-1].length
            if frame.offset - end > between or frame.offset + frame.length - run[0].offset > limit:
                yield _range(run)
                run = []
        run.append(frame)
    if run:
        yield _range(run)


def _range(run: Sequence[Placement]) -> Range:
    start = run[0].offset
    return Range(start, run[-1].offset + run[-1].length - start, tuple(run))


def _fill(size: int, ranges: Iterator[Range], limit: int) -> Iterator[Range]:
    """The ranges and everything between, before and behind them."""
    at = 0
    for part in [*ranges, Range(size, 0)]:
        while at < part.start:
            length = min(limit, part.start - at)
            yield Range(at, length)
            at += length
        if part.length:
            yield part
            at = part.end
