"""Appending past the page cache: whole pages directly, their ends through the cache, the same bytes in any case."""

import errno
import fcntl
import mmap
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mover.target.url import open_target

PAGE = 4096


class Memory:
    """Page-aligned memory with a pattern, of which pieces can be had at any place in a page."""

    def __init__(self, size):
        self.map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.map[:] = bytes(n * 7 % 251 for n in range(251)) * (size // 251) + bytes(size % 251)

    def at(self, place, length):
        return memoryview(self.map)[place : place + length]


MEMORY = Memory(1 << 20)


@pytest.fixture
def writes(monkeypatch):
    """(length, with O_DIRECT) of every pwrite."""
    seen, pwrite = [], os.pwrite

    def traced(fd, data, offset):
        seen.append((len(data), bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", traced)
    return seen


async def test_memory_in_step_with_the_file_goes_out_directly(tmp_path, writes):
    target = await open_target(tmp_path.as_uri())
    sizes = [100_000, 3000, 200_001, 64 << 10, 5]
    expected, offset = b"", 0
    for size in sizes:
        data = MEMORY.at(PAGE * 3 + offset % PAGE, size)
        await target.append("log", offset, data)
        expected, offset = expected + bytes(data), offset + size
        assert (tmp_path / "log").read_bytes() == expected
    await target.aclose()
    assert sum(length for length, _ in writes) == sum(sizes)
    directly = [length for length, direct in writes if direct]
    assert all(length % PAGE == 0 for length in directly)
    assert sum(directly) >= 100_000 + 200_001 + (64 << 10) - 6 * PAGE


async def test_memory_out_of_step_and_small_appends_go_through_the_cache(tmp_path, writes):
    target = await open_target(tmp_path.as_uri())
    await target.append("log", 0, MEMORY.at(1, 100_000))
    await target.append("log", 100_000, bytes(100_000))
    await target.append("log", 200_000, MEMORY.at(200_000 % PAGE, 60_000))
    await target.aclose()
    assert not any(direct for _, direct in writes)
    assert (tmp_path / "log").read_bytes() == b"".join(
        [MEMORY.at(1, 100_000), bytes(100_000), MEMORY.at(200_000 % PAGE, 60_000)]
    )


@pytest.mark.parametrize("refuses", ["fcntl", "pwrite"])
async def test_a_file_system_without_direct_writes(tmp_path, monkeypatch, refuses):
    module = fcntl if refuses == "fcntl" else os
    original = getattr(module, refuses)

    def refusing(fd, second, third=0):
        if refuses == "fcntl":
            direct = second == fcntl.F_SETFL and third & os.O_DIRECT
        else:
            direct = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
        if direct:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return original(fd, second, third)

    monkeypatch.setattr(module, refuses, refusing)
    target = await open_target(tmp_path.as_uri())
    await target.append("log", 0, MEMORY.at(0, 300_000))
    await target.append("log", 300_000, MEMORY.at(300_000 % PAGE, 300_000))
    await target.aclose()
    assert (tmp_path / "log").read_bytes() == bytes(MEMORY.at(0, 300_000)) + bytes(MEMORY.at(300_000 % PAGE, 300_000))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 200_000), st.booleans(), st.integers(0, 5000)), min_size=1, max_size=8))
async def test_any_sequence_of_appends(tmp_path, appends):
    """In step or not, with a torn tail before it or not, the file holds exactly what was appended."""
    target = await open_target(tmp_path.as_uri())
    await target.delete("log")
    expected = b""
    for size, in_step, torn in appends:
        if expected:
            with (tmp_path / "log").open("ab") as file:
                file.write(b"?" * torn)
        offset = len(expected)
        data = MEMORY.at(PAGE + offset % PAGE if in_step else 1 + offset % 100, size)
        await target.append("log", offset, data)
        expected += bytes(data)
        assert (tmp_path / "log").read_bytes() == expected
    await target.aclose()
