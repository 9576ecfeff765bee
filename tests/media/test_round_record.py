"""The round record: exact, canonical, and every bit of it covered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import IntegrityError
from mover.media.round_record import LogGap, RoundRecord

u63 = st.integers(0, (1 << 63) - 1)
gaps = st.none() | st.builds(LogGap, u63, u63, u63, u63, st.text(max_size=20))
records = st.builds(RoundRecord, u63, st.text(max_size=30), u63, u63, u63, u63, u63, u63, u63, u63, u63, gaps)


@given(records)
def test_decode_undoes_encode(record: RoundRecord) -> None:
    assert RoundRecord.decode(record.encode()) == record


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        RoundRecord.decode(data)


def test_every_flipped_bit_is_found() -> None:
    whole = RoundRecord(3, "host/1/2", 7, 10, 11, 12, 13, 14, 20, 15, 16, LogGap(1, 2, 3, 4, "recycled")).encode()
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            RoundRecord.decode(flipped)
