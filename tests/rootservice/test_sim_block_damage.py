"""A block that is not what the catalog says fails the backup: whatever it is that is wrong with it."""

from __future__ import annotations

import asyncio

import pytest
import sim_block_damage
from sim_archive import Archive

from mover.errors import MoverError
from mover.rootservice import archive, backup

OFTEN = ("common.magic", "resealed.data_seq", "resealed.data_checksum", "payload", "torn", "foreign")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in OFTEN else pytest.mark.soak) for kind in sim_block_damage.KINDS]
)
def test_a_damaged_block_is_never_backed_up(tmp_path, kind):
    made = Archive(tmp_path, seed=4, observers=2, tenants=1, pgs=3, blocks=4, block_size=24 << 10, log_size=64 << 10)
    found = sim_block_damage.damage(made.cluster, kind, 1)
    made.run(archive.start)
    made.catch_up()
    with pytest.raises(MoverError) as caught:
        made.run(lambda session: backup.run(session, incremental=False, plan=False, stop=asyncio.Event()))
    assert not list(made.dest.rglob("macro_block_*"))
    # Told which: by its index in a block_file.
    indexes = {replica["sstables"][found["at"]]["blocks"][found["ordinal"]][0] for replica in found["pg"]["replicas"]}
    assert any(f"block {index} " in str(caught.value) for index in indexes), caught.value
