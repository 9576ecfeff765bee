"""Archiving a cluster: every confirmed log of every PG, in files of its own as OceanBase has them."""

import asyncio
from pathlib import Path

import pytest
from cluster_place import Place, truth
from coordinator import small_and_fast  # noqa: F401 - the fixture
from tiny_cluster import TinyCluster, pg

from mover.errors import ConfigError, IntegrityError, LogGapError, PreconditionError
from mover.events import ArchiveProgress
from mover.media.archive_index import scan_index_file
from mover.media.archive_info import ArchiveStatus
from mover.media.layout import Layout
from mover.media.pg import PGKey
from mover.recovery.validate import ValidateRequest, validate
from mover.rootservice import archive
from mover.rootservice.round_views import archive_view
from mover.rootservice.session import Session

pytestmark = pytest.mark.usefixtures("small_and_fast")


@pytest.fixture
def cluster(tmp_path: Path) -> TinyCluster:
    cluster = TinyCluster(tmp_path / "sim", tenants=2, pgs=3)
    for turn in range(4):
        for key in cluster.logs:
            cluster.append(key, *(b"%d %d of " % (turn, n) * 40 for n in range(4)), kind=turn % 4)
    return cluster


@pytest.mark.parametrize("compression", ["none", "zstd:1"])
def test_every_log_of_every_pg(tmp_path, cluster, compression):
    place = Place(tmp_path, cluster, compression=compression)
    started = place.start()
    assert [(view.tenant_id, view.status) for view in started.rounds] == [
        (1001, "DOING"),
        (1002, "DOING"),
        (1, "DOING"),
    ]
    view = place.catch_up()
    for key in cluster.logs:
        assert b"".join(place.archived(1, key)) == truth(cluster, key)
    # The catalog says that nothing older can come: the checkpoint goes on without log.
    by_tenant = {found.tenant_id: found.record.checkpoint_scn for found in view.rounds}
    assert by_tenant == {1: cluster.now * 1000, 1001: cluster.now * 1000, 1002: cluster.now * 1000}
    # On with what came since, in new files; nothing twice.
    for key in list(cluster.logs)[::2]:
        cluster.append(key, b"more")
    cluster.switch()
    place.catch_up()
    for key in cluster.logs:
        assert b"".join(place.archived(1, key)) == truth(cluster, key)
    report = place.run(lambda session: validate(session.repository, ValidateRequest()), need_source=False)
    assert (report.violations, report.notes) == ([], [])
    assert report.checked_rounds.count(1) == 3


def test_an_archiver_that_dies_leaves_what_the_next_one_goes_on_with(tmp_path, cluster):
    place = Place(tmp_path, cluster, compression="none")
    place.start()
    place.catch_up()
    layout, key = Layout(cluster.name, 1), next(iter(cluster.logs))
    found = PGKey(*key)
    directory = place.dest / layout.archive_data_dir(found.tenant_id, 1, found)
    newest = max(directory.iterdir(), key=lambda path: int(path.name))
    index = place.dest / layout.archive_index_dir(found.tenant_id, 1, found) / "1"
    # It died in its last block, before the index record.
    newest.write_bytes(newest.read_bytes()[:-100])
    index.write_bytes(index.read_bytes()[:-144])
    place.catch_up()
    assert b"".join(block for block in read_blocks(place, key)) == truth(cluster, key)
    records = scan_index_file(index.read_bytes()).records
    assert [record.data_file_id for record in records] == list(range(1, len(records) + 1))
    # A record that names a file which is gone is an error, not a reason to begin again.
    newest.unlink()
    (directory / str(int(newest.name) + 1)).unlink()
    with pytest.raises(IntegrityError, match="has an index record, but it is not there"):
        place.catch_up()


def read_blocks(place: Place, key: tuple[int, int, int]) -> list[bytes]:
    """Raw payloads of all whole blocks, kickoff left out."""
    from mover.media.archive import scan_data_file

    found = PGKey(*key)
    directory = place.dest / Layout(place.settings.cluster_name, 1).archive_data_dir(found.tenant_id, 1, found)
    out = []
    for path in sorted(directory.iterdir(), key=lambda path: int(path.name)):
        out += [block.raw() for block in scan_data_file(path.read_bytes()).blocks if block.kickoff() is None]
    return out


def test_a_pg_and_a_tenant_that_come_while_it_runs(tmp_path, cluster):
    place = Place(tmp_path, cluster)
    place.start()
    place.catch_up()
    cluster.tenants[1003] = "late"
    new = [pg(1001, 90), pg(1003, 1)]
    for key in new:
        cluster.create(key)
        cluster.append(key, b"first", b"second")
    view = place.catch_up()
    assert {found.tenant_id: found.status for found in view.rounds}[1003] == "DOING"
    for key in cluster.logs:
        assert b"".join(place.archived(1, key)) == truth(cluster, key)
    # And one that is dropped: what is archived of it stays, and it holds nothing back.
    dropped = new[0]
    del cluster.logs[dropped]
    cluster.append(new[1], b"third")
    view = place.catch_up()
    assert min(found.record.checkpoint_scn for found in view.rounds) == cluster.now * 1000
    assert len(place.archived(1, dropped)) == 1


def test_the_checkpoint_waits_for_the_slowest_pg(tmp_path, cluster):
    place = Place(tmp_path, cluster)
    place.start()
    place.catch_up()
    slow, fast = [key for key in cluster.logs if key[0] >> 40 == 1001][:2]
    before = cluster.now
    cluster.append(slow, b"not confirmed", confirm=False)
    cluster.append(fast, b"confirmed")
    records = {found.tenant_id: found.record for found in place.catch_up().rounds}
    assert records[1001].checkpoint_scn == before * 1000
    assert records[1002].checkpoint_scn == cluster.now * 1000
    assert records[1].checkpoint_scn == before * 1000


def test_a_gap_interrupts_the_round(tmp_path, cluster):
    place = Place(tmp_path, cluster)
    place.start()
    key = next(iter(cluster.logs))
    cluster.switch()
    cluster.append(key, b"after")
    cluster.save_ilog(1, {k: (1, len(log.entries)) for k, log in cluster.logs.items()})
    cluster.recycle(1)
    with pytest.raises(LogGapError) as caught:
        place.catch_up()
    assert caught.value.code == -9027
    view = place.run(archive_view, need_source=False)
    assert {found.info.status for found in view.rounds} == {ArchiveStatus.INTERRUPTED}
    assert any(found.record and found.record.gap for found in view.rounds)
    with pytest.raises(PreconditionError):
        place.catch_up()
    place.run(archive.stop, need_source=False)
    # The next round begins where there is log.
    place.start()
    place.catch_up()
    assert b"".join(place.archived(2, key)) == b"".join(cluster.logs[key].entries[-1:])


def test_stopping(tmp_path, cluster):
    place = Place(tmp_path, cluster)
    place.start()
    with pytest.raises(PreconditionError, match="is DOING"):
        place.start()

    async def body(session: Session):
        stop = asyncio.Event()
        running = asyncio.ensure_future(archive.run(session, until_caught_up=False, stop=stop))
        while not any(isinstance(event, ArchiveProgress) for event in place.events):
            await asyncio.sleep(0.01)
        stop.set()
        return await running

    place.run(body)
    assert {view.status for view in place.run(archive_view, need_source=False).rounds} == {"DOING"}
    ended = place.run(archive.stop, need_source=False)
    assert {view.status for view in ended.rounds} == {"STOP"} and len(ended.rounds) == 3
    for key in cluster.logs:
        assert b"".join(place.archived(1, key)) == truth(cluster, key)


def test_a_running_archiver_finishes_the_round_when_asked(tmp_path, cluster):
    place = Place(tmp_path, cluster)
    place.start()

    async def body(session: Session):
        running = asyncio.ensure_future(archive.run(session, until_caught_up=False, stop=asyncio.Event()))
        while not any(isinstance(event, ArchiveProgress) for event in place.events):
            await asyncio.sleep(0.01)
        cluster.append(next(iter(cluster.logs)), b"the last")
        await archive.stop(session)
        return await running

    ended = place.run(body)
    assert {view.status for view in ended.rounds} == {"STOP"}
    for key in cluster.logs:
        assert b"".join(place.archived(1, key)) == truth(cluster, key)


def test_the_settings_must_name_the_cluster(tmp_path, cluster):
    place = Place(tmp_path, cluster)
    cluster.name = "another"
    cluster.save_catalog()
    with pytest.raises(ConfigError, match="the source is cluster 'another'"):
        place.start()
