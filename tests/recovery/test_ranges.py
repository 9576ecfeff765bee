"""What is read of a macro file: every frame that is wanted once, and no more than it is worth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.recovery.ranges import REQUEST_COST, WORTH_A_LOOK, WORTH_IT, Range, plan_ranges
from mover.repository.placement import Placement
from mover.store.base import BlockIdentity

PAGE = 4096


def placement(offset: int, length: int) -> Placement:
    return Placement(BlockIdentity(offset // PAGE, 1, length - 200), bytes(16), 1, 0, offset, length)


@st.composite
def files(draw: st.DrawFn) -> tuple[int, list[Placement], int]:
    """Size, frames and the limit of a range: gaps of any size, none at all, or larger than a range."""
    frames, at = [], 0
    for gap, length in draw(st.lists(st.tuples(st.sampled_from([0, 0, 1, 255, 256, 257, 9000]), st.integers(1, 520)))):
        frames.append(placement(at + gap * PAGE, length * PAGE))
        at += (gap + length) * PAGE
    return at + draw(st.integers(1, 5000)) * PAGE, frames, draw(st.integers(520, 2100)) * PAGE


def _hold(ranges: tuple[Range, ...], frames: list[Placement], limit: int) -> None:
    """What every plan keeps."""
    assert [frame for part in ranges for frame in part.frames] == frames
    end = 0
    for part in ranges:
        assert end <= part.start
        assert 0 < part.length <= limit
        end = part.end
        for frame in part.frames:
            assert part.start <= frame.offset
            assert frame.offset + frame.length <= part.end


@given(files(), st.booleans())
def test_a_plan_has_every_frame_once_and_is_the_whole_file_or_worth_it(
    file: tuple[int, list[Placement], int], everything: bool
) -> None:
    size, frames, limit = file
    plan = plan_ranges(size, frames, limit, everything=everything)
    _hold(plan.ranges, frames, limit)
    assert plan.bytes == sum(part.length for part in plan.ranges)
    if plan.whole:
        assert plan.bytes == size
        assert [part.start for part in plan.ranges] == [0, *[part.end for part in plan.ranges]][:-1]
        # A range is frames that touch, or bytes that the index does not name: never both.
        for part in plan.ranges:
            assert not part.frames or sum(frame.length for frame in part.frames) == part.length
    else:
        assert not everything
        assert size - plan.bytes >= max(WORTH_A_LOOK, size / WORTH_IT)
        for part in plan.ranges:
            inside = sum(frame.length for frame in part.frames)
            assert part.length - inside <= REQUEST_COST * (len(part.frames) - 1)
            assert (part.start, part.end) == (
                part.frames[0].offset,
                part.frames[-1].offset + part.frames[-1].length,
            )


def test_what_is_worth_it() -> None:
    frames = [placement(number << 20, 1 << 20) for number in range(64)]
    size, limit = 65 << 20, 8 << 20
    assert plan_ranges(size, frames, limit).whole
    assert [part.length for part in plan_ranges(size, frames, limit).ranges] == [limit] * 8 + [1 << 20]
    assert plan_ranges(size, frames[:50], limit).whole, "less than a fourth is saved"
    few = plan_ranges(size, [frames[3], frames[4], frames[40]], limit)
    assert not few.whole
    assert [(part.start >> 20, part.length >> 20) for part in few.ranges] == [(3, 2), (40, 1)]
    near = plan_ranges(size, [frames[3], frames[5]], limit)
    assert [(part.start >> 20, part.length >> 20) for part in near.ranges] == [(3, 3)], "one request, not two"
    assert plan_ranges(4 << 20, frames[:1], limit).whole, "a small file is read as it is"
    assert plan_ranges(size, [], limit) == plan_ranges(size, [], limit)
    assert plan_ranges(size, [], limit).bytes == 0


@pytest.mark.parametrize("size", [4096, 9 << 20])
def test_a_file_without_frames_is_read_when_everything_is(size: int) -> None:
    plan = plan_ranges(size, [], 8 << 20, everything=True)
    assert plan.whole
    assert plan.bytes == size
