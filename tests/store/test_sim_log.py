"""The synthetic cluster's log: an independent reader finds the ledger's truth in the servers' files."""

import hashlib
import struct

import pytest
from sim_reader import check_entry, crc, read_clog, read_ilog

from mover.store.sim.cluster import create, grow
from mover.store.sim.entry import zstd_frame
from mover.store.sim.ledger import read_ledger
from mover.store.sim.plan import Plan

SMALL = Plan(seed=7, observers=3, pgs=6, blocks=2, block_size=16 << 10, log_size=1 << 20, clog_fill=400 << 10)


def grown(directory):
    create(directory, SMALL)
    grow(directory)
    grow(directory, recycle=1)
    return directory


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return grown(tmp_path_factory.mktemp("sim") / "site")


@pytest.fixture(scope="module")
def clogs(site):
    return {n: read_clog(site / f"observer_{n}/store/clog", first_file(site, n)) for n in (1, 2, 3)}


def catalog_rows(site, table):
    import json

    document = json.loads((site / "catalog.json").read_text())["tables"][table]
    names = [name for name, _ in document["columns"]]
    return [dict(zip(names, row, strict=True)) for row in document["rows"]]


def first_file(site, server):
    for row in catalog_rows(site, "__all_virtual_server_clog_stat"):
        if row["svr_ip"] == f"10.0.0.{server}":
            return row["user_clog_min_using_file_id"]
    raise AssertionError(server)


def replicas(site):
    for pg in read_ledger(site)["pgs"]:
        for replica in pg["replicas"]:
            yield (pg["table_id"], pg["partition_id"], pg["partition_cnt"]), pg, replica


def test_every_replica_has_the_confirmed_log(site, clogs):
    """Of each log the copy with the highest proposal is the one in the ledger, up to where the replica is."""
    for key, pg, replica in replicas(site):
        found, _ = clogs[replica["server"]]
        assert replica["max_confirmed_log_id"] <= replica["last_log_id"]
        upto = min(replica["last_log_id"], pg["confirmed_log_id"])
        for log_id, submit_ts, _, digest, size, _ in pg["logs"]:
            if log_id <= upto:
                entry = max(found[key, log_id])[4]
                assert hashlib.sha256(entry).hexdigest() == digest and len(entry) == size
                assert check_entry(entry)[3] == submit_ts


def test_the_ledger_is_contiguous_and_its_checksums_are_a_chain(site, clogs):
    for key, pg, replica in replicas(site):
        if replica["role"] != 1:
            continue
        found, _ = clogs[replica["server"]]
        accum = pg["start_accum_checksum"]
        assert [row[0] for row in pg["logs"]] == list(range(pg["start_log_id"], pg["confirmed_log_id"] + 1))
        for log_id, _, chained, *_ in pg["logs"]:
            accum = crc(struct.pack("<q", check_entry(max(found[key, log_id])[4])[4]), accum)
            assert accum == chained


def test_ilogs_point_at_confirmed_entries(site, clogs):
    pgs = {(pg["table_id"], pg["partition_id"], pg["partition_cnt"]): pg for pg in read_ledger(site)["pgs"]}
    seen = 0
    for server, (found, _) in clogs.items():
        for path in (site / f"observer_{server}/store/ilog").iterdir():
            for key, run in read_ilog(path).items():
                truth = {row[0]: row for row in pgs[key]["logs"]}
                for log_id, file, offset, size, accum, submit in run:
                    if log_id < pgs[key]["start_log_id"]:
                        continue
                    assert (file, offset, size) == max(found[key, log_id])[1:4]
                    assert truth[log_id][1:3] == [submit, accum]
                    seen += 1
    assert seen > 1000


def test_ilogs_end_before_what_is_confirmed(site):
    behind = [replica["max_confirmed_log_id"] - replica["ilog_log_id"] for _, _, replica in replicas(site)]
    assert min(behind) >= 0 and max(behind) > 0


def test_the_log_has_what_makes_reading_hard(site, clogs):
    """Proposals that lost, proposals made again, logs that nobody confirmed, followers behind, LZ4, zstd."""
    pgs = {(pg["table_id"], pg["partition_id"], pg["partition_cnt"]): pg for pg in read_ledger(site)["pgs"]}
    again = lost = unconfirmed = swapped = 0
    for found, _ in clogs.values():
        order = {}
        for (key, log_id), copies in found.items():
            if log_id > pgs[key]["confirmed_log_id"]:
                unconfirmed += 1
            bodies = {entry[105:] for *_, entry in copies}
            lost += len(bodies) > 1
            again += len(copies) > 1 and len(bodies) == 1
            order.setdefault(key, []).append((copies[0][1:3], log_id))
        for ids in order.values():
            line = [log_id for _, log_id in sorted(ids)]
            swapped += line != sorted(line)
    assert again and lost and unconfirmed and swapped
    assert any(replica["last_log_id"] < pg["confirmed_log_id"] for _, pg, replica in replicas(site))
    magics = b"".join((path.read_bytes()[: 2 << 20]) for path in (site / "observer_2/store/clog").iterdir())
    assert magics.count(b"C\x02\0\0") and magics.count(b"C\x03\0\0")


def test_finished_files_and_a_live_one_with_stale_bytes_behind_it(tmp_path):
    site = tmp_path / "site"
    create(site, SMALL)
    for server in (1, 2, 3):
        _, ends = read_clog(site / f"observer_{server}/store/clog", first_file(site, server))
        *finished, live = sorted(ends)
        assert finished and {ends[file][0] for file in finished} == {"info"}
        kind, offset = ends[live]
        assert kind == "end"
        path = site / f"observer_{server}/store/clog/{live}"
        data = path.read_bytes()
        # The file was another one once: its trailer is still there, and names another successor.
        (following,) = struct.unpack_from(">i", data, len(data) - 512 + 54)
        assert 0 < following <= live
        assert b"LB" in data[offset : offset + (1 << 20)]


def ends(path):
    """Size, the first MiB and the last page: what a sparse log file has."""
    with path.open("rb") as file:
        first = file.read(1 << 20)
        file.seek(max(path.stat().st_size - 4096, 0))
        return path.stat().st_size, first, file.read()


def test_the_same_seed_gives_the_same_bytes(site, tmp_path):
    other = grown(tmp_path / "other")
    files = sorted(path.relative_to(site) for path in site.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    for path in files:
        if path.name == "block_file":
            continue  # compared by its own test, block by block
        assert ends(site / path) == ends(other / path), path


def test_another_seed_gives_other_bytes(tmp_path):
    for seed in (1, 2):
        create(
            tmp_path / str(seed), Plan(seed=seed, observers=1, pgs=1, blocks=1, block_size=8 << 10, log_size=1 << 16)
        )
    one, two = (read_ledger(tmp_path / str(seed))["pgs"][0]["logs"] for seed in (1, 2))
    assert one != two


@pytest.mark.parametrize(
    "data", [b"", b"a", bytes(40), b"abc" * 30 + bytes(100) + b"x", bytes(300_000), b"ab" * 200_000]
)
def test_zstd_frames_by_hand_are_frames(data):
    import zstandard

    assert zstandard.ZstdDecompressor().decompress(zstd_frame(data), max_output_size=len(data) + 1) == data


def test_one_server_alone_and_two(tmp_path):
    for observers in (1, 2):
        site = tmp_path / str(observers)
        create(site, Plan(seed=3, observers=observers, pgs=3, blocks=1, block_size=8 << 10, log_size=1 << 17))
        grow(site)
        for key, pg, replica in replicas(site):
            found, _ = read_clog(site / f"observer_{replica['server']}/store/clog", first_file(site, replica["server"]))
            assert pg["logs"]
            for log_id, *_, digest, _, _ in pg["logs"]:
                if log_id <= replica["last_log_id"]:
                    assert hashlib.sha256(max(found[key, log_id])[4]).hexdigest() == digest
