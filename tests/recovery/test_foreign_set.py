"""Numbers of PGs in names."""

from __future__ import annotations

from mover.media.pg import PGKey
from mover.recovery.foreign_set import partition_of


def test_a_partition_of_two_levels_has_both_ids_in_its_number() -> None:
    bit = 1 << 28
    assert partition_of(PGKey(1, 7, 8)) == 7
    assert partition_of(PGKey(1, bit, bit)) == 1152921504875282432
    assert partition_of(PGKey(1, bit | 1, bit)) == 1152921509170249728
