"""Log entries of an archive block: the two kernels agree, and refuse whatever the definition refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twins import NATIVE, PURE

from mover.errors import IntegrityError
from mover.media.log_entry import LogEntryHeader, LogType, iter_log_entries, log_entry, next_accum
from mover.media.pg import PGKey

pytestmark = pytest.mark.skipif(NATIVE is None, reason="the extensions are not built")
TABLE = 1001 << 40 | 50_001
PG = PGKey(TABLE, 3, 8)
bodies = st.lists(st.binary(max_size=60), min_size=1, max_size=6)


def run_of(contents: list[bytes], first: int) -> bytes:
    return b"".join(log_entry(LogType.SUBMIT, PG, first + n, body, timestamp=5 + n) for n, body in enumerate(contents))


@given(bodies, st.integers(0, 1 << 40), st.integers(0, (1 << 32) - 1), st.booleans())
def test_a_run_is_walked_as_the_definition_says(contents: list[bytes], first: int, accum: int, known: bool) -> None:
    data = run_of(contents, first)
    found = NATIVE.walk_entries(data, TABLE, first if known else -1, accum)
    assert found == PURE.walk_entries(data, TABLE, first if known else -1, accum)
    expected = accum
    for entry in iter_log_entries(data):
        expected = next_accum(expected, entry.header.data_checksum)
    assert found == (first, first + len(contents) - 1, len(contents), expected)


@given(bodies, st.data())
def test_any_change_is_refused_by_both_or_is_no_change(contents: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(run_of(contents, 7))
    place = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[place // 8] ^= 1 << place % 8
    found = NATIVE.walk_entries(whole, TABLE, 7, 0)
    assert found == PURE.walk_entries(whole, TABLE, 7, 0)
    if found is not None:
        # Only the mark of a batch commit may be flipped: no checksum covers it.
        entries = list(iter_log_entries(whole))
        assert sum(entry.header.batch_committed for entry in entries) == 1


@given(st.binary(max_size=400), st.integers(-1, 3))
def test_any_bytes(data: bytes, due: int) -> None:
    assert NATIVE.walk_entries(data, TABLE, due, 0) == PURE.walk_entries(data, TABLE, due, 0)


@given(bodies, st.integers(0, 700))
def test_a_run_that_is_cut(contents: list[bytes], size: int) -> None:
    data = run_of(contents, 7)[:size]
    found = NATIVE.walk_entries(data, TABLE, 7, 0)
    assert found == PURE.walk_entries(data, TABLE, 7, 0)
    try:
        whole = bool(list(iter_log_entries(data)))
    except IntegrityError:
        whole = False
    assert (found is not None) == whole


@pytest.mark.parametrize("twin", [NATIVE, PURE], ids=["native", "pure"])
def test_what_is_no_ordinary_log(twin) -> None:
    data = run_of([b"a", b"b"], 7)
    assert twin.walk_entries(data, TABLE + 1, 7, 0) is None
    assert twin.walk_entries(data, TABLE, 8, 0) is None
    assert twin.walk_entries(data + run_of([b"c"], 8), TABLE, 7, 0) is None
    assert twin.walk_entries(log_entry(LogType.ARCHIVE_KICKOFF, PG, 7, b"", timestamp=1), TABLE, 7, 0) is None
    assert twin.walk_entries(b"", TABLE, 7, 0) is None
    batch = LogEntryHeader(LogType.SUBMIT, PG, 7, 0, 0, 5, 5, batch_committed=True, transaction=True)
    assert twin.walk_entries(batch.pack(), TABLE, 7, 0) == (7, 7, 1, next_accum(0, 0))
    with pytest.raises(ValueError, match="32 bits"):
        twin.walk_entries(data, TABLE, 7, 1 << 32)
