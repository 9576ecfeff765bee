"""Limits that processes share: never faster than the limit, archivers first, changed while everybody runs."""

import asyncio
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import ConfigError
from mover.target.base import BytesPart
from mover.target.files import FileTarget
from mover.target.pacing import _BURST, Line, PacedTarget, SharedPace, reserve

MIB = 1 << 20


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 1000), st.booleans()), min_size=1, max_size=60),
    st.floats(1, 1e4),
)
def test_never_more_than_the_limit_and_archivers_do_not_wait_for_backups(steps, per_second):
    line, now = Line(per_second), 1000.0
    only_first = Line(per_second)
    granted = []  # (when, amount), of those who do not go first
    for pause, amount, first in steps:
        now += pause
        line, wait = reserve(line, amount, now, first=first)
        assert wait >= 0
        if first:
            only_first, alone = reserve(only_first, amount, now, first=True)
            assert wait == pytest.approx(alone), "what a backup reserved is not what an archiver waits for"
        else:
            granted.append((now + wait, amount))
    granted.sort()
    for begin in range(len(granted)):
        total = 0.0
        for when, amount in granted[begin:]:
            # The amount that is granted last is on its way only then.
            assert total <= (when - granted[begin][0] + _BURST) * per_second + granted[begin][1] + 1e-6 * per_second + 1
            total += amount


def test_without_a_limit_nobody_waits():
    assert reserve(Line(), 1 << 40, 5.0, first=False) == (Line(), 0.0)


def test_what_an_archiver_takes_is_taken_from_the_others():
    line, _ = reserve(Line(100.0), 1000, 50.0, first=True)
    _, wait = reserve(line, 1, 50.0, first=False)
    assert wait == pytest.approx(10.0 - _BURST)


OTHER = """
import sys; from pathlib import Path; from mover.target.pacing import SharedPace
pace = SharedPace(Path(sys.argv[1]), now=lambda: 100.0)
print(pace.reserve(5000, 1, first=False) if len(sys.argv) == 2 else pace.alone)
"""


def other(*arguments):
    """What another process says: the wait for 5000 bytes, or whether it is alone."""
    ran = subprocess.run([sys.executable, "-c", OTHER, *arguments], capture_output=True, check=True, text=True)
    return ran.stdout.strip()


def test_processes_share_the_reservations(tmp_path):
    file = tmp_path / "state" / "pace"
    pace = SharedPace(file, 1000.0, now=lambda: 100.0)
    waits = [float(other(file)) for _ in range(3)]
    assert waits == [pytest.approx(wait) for wait in (0.0, 5.0 - _BURST, 10.0 - _BURST)]
    assert pace.reserve(1, 1, first=False) == pytest.approx(15.0 - _BURST)
    pace.set_limits(0.0, 10.0)
    assert pace.limits == (0.0, 10.0)
    assert pace.reserve(1 << 40, 1, first=False) == 0.0
    pace.close()
    pace.close()


def test_limits_end_with_the_last_who_uses_them(tmp_path):
    file = tmp_path / "pace"
    first = SharedPace(file, 1000.0, 5.0)
    second = SharedPace(file)
    assert (first.alone, second.alone, other(file, "alone")) == (True, False, "False")
    assert second.limits == (1000.0, 5.0)
    first.close()
    third = SharedPace(file, requests=7.0)
    assert second.limits == third.limits == (1000.0, 7.0), "said by one, it holds for all"
    second.close()
    third.close()
    assert other(file, "alone") == "True"
    last = SharedPace(file)
    assert last.limits == (0.0, 0.0)
    last.close()


def test_a_clock_that_began_anew_holds_nobody_up(tmp_path):
    now = 1e9
    pace = SharedPace(tmp_path / "pace", 1000.0, 1.0, now=lambda: now)
    pace.reserve(1000, 1, first=True)
    now = 5.0
    assert pace.reserve(1000, 1, first=False) == 0.0
    pace.close()


def test_a_place_that_can_not_hold_them(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        SharedPace(tmp_path / "file" / "pace")


class Stepping:
    """A clock that is where its sleepers are."""

    def __init__(self):
        self.seconds = 1000.0

    def now_us(self):
        return int(self.seconds * 1e6)

    def monotonic(self):
        return self.seconds

    async def sleep(self, seconds):
        until = self.seconds + seconds
        while self.seconds < until:
            await asyncio.sleep(0)
            self.seconds = min(until, self.seconds + 0.01)


async def test_a_paced_destination_keeps_its_parallelism_and_its_limit(tmp_path):
    clock = Stepping()
    inner = FileTarget(str(tmp_path / "dest"), "file:///dest")
    await inner.open()
    pace = SharedPace(tmp_path / "pace", 10.0 * MIB, now=clock.monotonic)
    target = PacedTarget(inner, pace, first=False, clock=clock)

    async def write(name):
        writer = await target.create(name)
        for _ in range(5):
            await writer.write(BytesPart(bytes(MIB)))
        await writer.commit()

    began = clock.seconds
    await asyncio.gather(*(write(f"f{n}") for n in range(4)))
    assert 20 / 10 - _BURST - 0.2 <= clock.seconds - began <= 20 / 10 + 0.2
    assert (await target.get("f1"))[:1] == b"\0"
    buffer = memoryview(bytearray(MIB))
    await target.read_into("f2", MIB, buffer)
    assert [info.path async for info in target.list("")] == ["f0", "f1", "f2", "f3"]
    await target.aclose()
