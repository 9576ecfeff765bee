"""The log of a tiny cluster, read back: what is confirmed, of each PG, in order, whatever else the clog holds."""

import asyncio
from pathlib import Path

import pytest
from tiny_cluster import TinyCluster, pg

from mover.errors import IntegrityError, LogGapError
from mover.media.pg import PGKey
from mover.store.observer.ilog import Ilog, IlogFile
from mover.store.observer.source import open_observer


async def read_all(cluster: TinyCluster, *, from_start: bool = True, polls: int = 3) -> dict[PGKey, list]:
    """Every run of every PG; the log is followed from what ``start_of`` says."""
    observer = open_observer(cluster.url)
    log = await observer.log()
    runs: dict[PGKey, list] = {}
    try:
        for place in await observer.places():
            start = await log.start_of(place)
            log.follow(place, start.log_id, start.accum)
            runs[place.pg] = []
        for _ in range(polls):
            for run in await log.poll(1 << 30):
                runs[run.pg].append(run)
    finally:
        await log.aclose()
        await observer.aclose()
    return runs


def check(cluster: TinyCluster, runs: dict[PGKey, list], upto: dict | None = None) -> None:
    for key, log in cluster.logs.items():
        found = runs[PGKey(*key)]
        last = cluster.confirmed[key] if upto is None else upto[key]
        assert b"".join(run.payload for run in found) == b"".join(log.entries[:last])
        if found:
            assert (found[0].first_log_id, found[-1].last_log_id) == (1, last)
            assert found[-1].accum == log.accum[last - 1]
            assert found[-1].last_submit_ts == log.submit[last - 1]


@pytest.fixture
def cluster(tmp_path: Path) -> TinyCluster:
    return TinyCluster(tmp_path / "sim")


def test_pgs_are_told_apart_and_only_what_is_confirmed_comes(cluster):
    keys = list(cluster.logs)
    for turn in range(5):
        for key in keys:
            cluster.append(key, *(bytes([turn, n]) * 50 for n in range(3)), kind=turn % 4)
    cluster.append(keys[0], b"not confirmed yet", confirm=False)
    runs = asyncio.run(read_all(cluster))
    check(cluster, runs)
    assert runs[PGKey(*keys[0])][-1].last_log_id == 15
    cluster.confirm(keys[0])
    check(cluster, asyncio.run(read_all(cluster)))


def test_a_proposal_that_was_replaced_is_not_the_log(cluster):
    """The same log id twice: before the index knows, the greater proposal counts; when it does, the one it names."""
    key = next(iter(cluster.logs))
    loser = cluster.propose(key, 1, b"proposed by the leader that was", proposal=1)
    cluster.clog.add([loser[1]], cluster.now)
    winner = cluster.propose(key, 1, b"proposed again", proposal=2)
    late = cluster.propose(key, 1, b"an old message that came late", proposal=1)
    cluster.write([(key, *winner)])
    cluster.clog.add([late[1]], cluster.now)
    cluster.confirm(key)
    cluster.save()
    check(cluster, asyncio.run(read_all(cluster)))
    cluster.save_ilog(1, {key: (1, 1)})
    check(cluster, asyncio.run(read_all(cluster)))


def test_files_that_were_reused_and_entries_in_two_files(cluster):
    keys = list(cluster.logs)
    old = TinyCluster(cluster.directory.parent / "older", tenants=2, pgs=2)
    for key in keys:
        old.append(key, *(b"from the life of the file before" * 9 for _ in range(9)))
    stale = bytes(old.clog.data)
    cluster.now += 3_600_000_000
    for number in range(3):
        for key in keys:
            cluster.append(key, b"a" * 100, bytes([number]) * 1000)
        cluster.switch(stale)
    cluster.append(keys[0], b"in the fourth")
    check(cluster, asyncio.run(read_all(cluster)))


def test_what_the_index_knows_needs_no_catalog(cluster):
    key = next(iter(cluster.logs))
    cluster.append(key, *(bytes([n]) * 20 for n in range(9)), confirm=False)
    cluster.save_ilog(1, {key: (1, 4)})
    cluster.save_ilog(2, {key: (5, 8)}, batch=frozenset({(key, 6)}))
    runs = asyncio.run(read_all(cluster))[PGKey(*key)]
    payload = b"".join(run.payload for run in runs)
    # A batch commit is marked as an observer marks it in its archive.
    marked = bytearray(cluster.logs[key].entries[5])
    marked[73] |= 0x80
    assert payload == b"".join([*cluster.logs[key].entries[:5], marked, *cluster.logs[key].entries[6:8]])
    assert runs[-1].accum == cluster.logs[key].accum[7]


def test_a_running_checksum_that_does_not_hold(cluster):
    key = next(iter(cluster.logs))
    cluster.append(key, b"one", b"two")
    cluster.logs[key].accum[1] ^= 1
    cluster.save_ilog(1, {key: (1, 2)})
    with pytest.raises(IntegrityError, match=r"log 2 of PG .* running checksum"):
        asyncio.run(read_all(cluster))


def test_log_that_was_recycled(cluster):
    key, other = list(cluster.logs)[:2]
    cluster.append(key, b"one", b"two")
    cluster.switch()
    cluster.append(key, b"three")
    cluster.append(other, b"first")
    cluster.save_ilog(1, {key: (1, 3)})
    cluster.recycle(1)
    observer = open_observer(cluster.url)

    async def body() -> None:
        log = await observer.log()
        places = {place.pg: place for place in await observer.places()}
        start = await log.start_of(places[PGKey(*key)])
        # The oldest that is left, and the checksum before it from the index.
        assert (start.log_id, start.accum) == (3, cluster.logs[key].accum[1])
        assert start.submit_ts == cluster.logs[key].submit[1]
        assert (await log.start_of(places[PGKey(*other)])).log_id == 1
        log.follow(places[PGKey(*key)], 2, cluster.logs[key].accum[0])
        with pytest.raises(LogGapError, match="was in clog file 1, the oldest there is now is 2"):
            await log.poll(1 << 30)
        await log.aclose()

    asyncio.run(body())


def test_a_file_that_vanishes_while_it_is_followed(cluster):
    key = next(iter(cluster.logs))
    cluster.append(key, b"one")
    observer = open_observer(cluster.url)

    async def body() -> None:
        log = await observer.log()
        place = next(p for p in await observer.places() if p.pg == PGKey(*key))
        log.follow(place, 1, 0)
        assert [run.last_log_id for run in await log.poll(1 << 30)] == [1]
        # The tail grows, in the page that was read already.
        cluster.append(key, b"two")
        assert [run.last_log_id for run in await log.poll(1 << 30)] == [2]
        cluster.switch()
        cluster.append(key, b"three")
        cluster.switch()
        cluster.recycle(1)
        cluster.recycle(2)
        with pytest.raises(LogGapError, match="recycled before it was read"):
            await log.poll(1 << 30)
        await log.aclose()

    asyncio.run(body())


def test_damage_in_the_middle_is_told_from_the_end(cluster):
    key = next(iter(cluster.logs))
    for n in range(3):
        cluster.append(key, bytes([n]) * 5000)
    path = cluster.store / "clog" / "1"
    data = bytearray(path.read_bytes())
    data[cluster.logs[key].places[1][1] + 200] ^= 1
    path.write_bytes(data)
    observer = open_observer(cluster.url)

    async def body() -> None:
        log = await observer.log()
        log._clock = clock = Ticking()
        place = next(p for p in await observer.places() if p.pg == PGKey(*key))
        log.follow(place, 1, 0)
        assert [run.last_log_id for run in await log.poll(1 << 30)] == [1]
        clock.seconds = 5
        with pytest.raises(IntegrityError, match=r"damaged at offset .* newer log follows"):
            await log.poll(1 << 30)
        await log.aclose()

    asyncio.run(body())


class Ticking:
    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_a_file_without_its_end_before_another_one(cluster):
    key = next(iter(cluster.logs))
    cluster.append(key, b"one")
    data = (cluster.store / "clog" / "1").read_bytes()
    cluster.switch()
    (cluster.store / "clog" / "1").write_bytes(data)
    with pytest.raises(IntegrityError, match="without an info block, but file 2 is there"):
        asyncio.run(read_all(cluster))


def test_log_of_a_pg_that_is_followed_later(cluster):
    keys = list(cluster.logs)
    late = pg(1001, 77)
    observer = open_observer(cluster.url)

    async def body() -> None:
        log = await observer.log()
        for place in await observer.places():
            log.follow(place, 1, 0)
        cluster.append(keys[0], b"one")
        await log.poll(1 << 30)
        cluster.create(late)
        cluster.append(late, b"created", b"written")
        await log.poll(1 << 30)
        place = next(p for p in await observer.places() if p.pg == PGKey(*late))
        log.follow(place, 1, 0)
        runs = await log.poll(1 << 30)
        assert [(run.pg, run.last_log_id) for run in runs] == [(PGKey(*late), 2)]
        await log.aclose()

    asyncio.run(body())


def test_the_oldest_log_that_is_left_is_found_without_a_look_at_each(cluster, monkeypatch):
    key = next(iter(cluster.logs))
    for _ in range(4):
        cluster.append(key, *(b"x" for _ in range(200)))
        cluster.switch()
    cluster.append(key, b"in the fifth")
    cluster.save_ilog(1, {key: (1, 500)})
    cluster.save_ilog(2, {key: (501, 801)})
    ilog, looks, cursor = Ilog(cluster.store / "ilog"), [], IlogFile.cursor

    def counted(self, found, log_id):
        looks.append(log_id)
        return cursor(self, found, log_id)

    monkeypatch.setattr(IlogFile, "cursor", counted)
    monkeypatch.setattr("mover.store.observer.ilog._OUT_OF_PLACE", 3)
    ilog.refresh()
    accum = cluster.logs[key].accum
    for first_file, expected in ((1, 1), (2, 201), (3, 401), (4, 601), (5, 801), (6, 802)):
        looks.clear()
        log_id, before = ilog.oldest_in(PGKey(*key), first_file)
        assert (log_id, before and before.accum) == (expected, accum[expected - 2] if expected > 1 else None)
        assert len(looks) < 30
