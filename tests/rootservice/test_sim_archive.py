"""Archiving synthetic clusters, made by a writer that knows nothing of our readers: its ledger is the truth."""

import pytest
from sim_archive import Archive

from mover.recovery.validate import ValidateRequest, validate
from mover.rootservice import archive
from mover.store.sim.cluster import grow


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_the_archive_is_the_ledger(tmp_path, seed):
    made = Archive(
        tmp_path, seed=seed, observers=3, tenants=2, pgs=9, blocks=1, block_size=64 << 10, log_size=2 << 20,
        clog_fill=512 << 10,
    )  # fmt: skip
    made.run(archive.start)
    made.catch_up()
    first = made.check()
    for _ in range(2):
        grow(made.cluster)
        made.catch_up()
    assert made.check() > 2 * first
    report = made.run(lambda session: validate(session.repository, ValidateRequest()), need_source=False)
    assert (report.violations, report.notes) == ([], [])


def test_a_round_that_begins_late(tmp_path):
    """Files were recycled before: each PG begins where every log is there, on from a checksum the index knows."""
    made = Archive(
        tmp_path, seed=3, observers=3, tenants=1, pgs=4, blocks=1, block_size=64 << 10, log_size=2 << 20,
        clog_fill=256 << 10,
    )  # fmt: skip
    grow(made.cluster)
    grow(made.cluster, recycle=3)
    made.run(archive.start)
    made.catch_up()
    assert made.check() > 100
