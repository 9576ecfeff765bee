"""The record of a cluster's round: exact, canonical, and every bit of it covered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import IntegrityError
from mover.media.cluster_record import ClusterRecord, TenantShare

u63 = st.integers(0, (1 << 63) - 1)
shares = st.dictionaries(u63, st.builds(TenantShare, u63, u63, u63, u63, st.text(max_size=20)), max_size=4)
records = st.builds(ClusterRecord, u63, st.text(max_size=30), u63, u63, u63, u63, shares)


@given(records)
def test_decode_undoes_encode(record: ClusterRecord) -> None:
    assert ClusterRecord.decode(record.encode()) == record


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        ClusterRecord.decode(data)


def test_every_flipped_bit_is_found() -> None:
    whole = ClusterRecord(3, "host/1/2", 7, 10, tenants={1001: TenantShare(1, 2, 3, 4, "recycled")}).encode()
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            ClusterRecord.decode(flipped)


def test_the_cluster_is_the_least_of_its_tenants() -> None:
    tenants = {1001: TenantShare(5, 100, 7, 1), 1002: TenantShare(6, 90, 8, 2, "log was recycled")}
    record = ClusterRecord(3, "", 7, 10, 9, 95, tenants)
    whole = record.of_tenant(1)
    assert whole is not None and whole.gap is not None
    assert (whole.start_scn, whole.checkpoint_scn, whole.input_bytes, whole.output_bytes) == (6000, 90_000, 15, 3)
    assert whole.gap.reason == "log was recycled"
    own = record.of_tenant(1001)
    assert own is not None and own.gap is None and own.checkpoint_scn == 100_000
    assert record.of_tenant(1003) is None
