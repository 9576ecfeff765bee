"""The demo's judgement: it must see every kind of difference."""

import asyncio

import pytest

from mover.demo.compare import Fingerprint, differences
from mover.demo.story import Report, _first, _workplace
from mover.errors import PreconditionError, TargetError

BEFORE = {"a": Fingerprint(10, 77), "b": Fingerprint(3, 5)}


def test_equal_is_equal():
    assert differences(BEFORE, dict(BEFORE)) == []


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"a": Fingerprint(10, 77)}, "b: is missing"),
        ({**BEFORE, "c": Fingerprint(0, 0)}, "c: was not there, and is now"),
        ({**BEFORE, "a": Fingerprint(9, 77)}, "a: 9 rows, not 10"),
        ({**BEFORE, "a": Fingerprint(10, 78)}, "a: 10 rows as expected, but checksum 78, not 77"),
    ],
)
def test_every_difference_is_named(after, said):
    assert differences(BEFORE, after) == [said]


def test_a_report_without_tables_is_not_ok():
    """A story that compared nothing has proven nothing."""
    assert not Report(dest="file:///d", directory=None).ok


async def test_temporary_directory_goes_also_when_cancelled(tmp_path):
    entered = asyncio.Event()

    async def work():
        async with _workplace(None, tmp_path) as place:
            (place / "source").mkdir()
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    assert list(tmp_path.iterdir())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []


async def test_a_named_directory_is_kept_and_must_be_empty(tmp_path):
    async with _workplace(tmp_path / "new" / "place", None) as place:
        (place / "x").write_text("x")
    assert (tmp_path / "new" / "place" / "x").exists()
    with pytest.raises(PreconditionError, match="is not empty"):
        async with _workplace(tmp_path / "new" / "place", None):
            pass


def test_our_error_is_the_reason_not_its_echo():
    group = BaseExceptionGroup("", [ValueError("echo"), BaseExceptionGroup("", [TargetError("the reason")])])
    assert str(_first(group)) == "the reason"
    assert str(_first(BaseExceptionGroup("", [ValueError("alone")]))) == "alone"
