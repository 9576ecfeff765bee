"""The synthetic cluster's blocks and tables: what SQL lists is in the block_file, and is what the ledger says."""

import hashlib
import json
import struct

import asyncmy
import lz4.block
import pytest
from sim_reader import crc

from mover.store.sim.cluster import create, grow
from mover.store.sim.ledger import read_ledger
from mover.store.sim.plan import Plan
from mover.store.sim.sql import load

MIB2 = 2 << 20
PLAN = Plan(seed=9, observers=3, tenants=2, pgs=10, blocks=4, block_size=40 << 10, log_size=128 << 10)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A cluster after a minor, a minor and a major."""
    directory = tmp_path_factory.mktemp("sim") / "site"
    create(directory, PLAN)
    for _ in range(3):
        grow(directory)
    return directory


def rows(site, table):
    document = json.loads((site / "catalog.json").read_text())["tables"][table]
    names = [name for name, _ in document["columns"]]
    return [dict(zip(names, row, strict=True)) for row in document["rows"]]


def block(site, server, index):
    with (site / f"observer_{server}/store/sstable/block_file").open("rb") as file:
        file.seek(index * MIB2)
        return file.read(MIB2)


def word(header_length, magic, version, reserved, numbers):
    folded = magic ^ header_length ^ version ^ reserved
    for at in range(0, len(numbers), 2):
        folded ^= struct.unpack_from("<H", numbers, at)[0]
    return folded


def check_block(data):
    """The fields SQL shows, of a block whose checksums and offsets hold."""
    size, version, magic, attr, data_version, payload, checksum = struct.unpack_from("<iiiiqiI", data)
    assert (size, version, magic) == (32, 1, 1001) and attr in (1, 9)
    assert checksum == crc(data[32 : 32 + payload])
    assert not data[32 + payload :].strip(b"\0")
    names = "table_id data_version columns rowkeys scale store rows occupy micros micro_size at size index"
    names += " index_size keys keys_size"
    head = struct.unpack_from("<iiii", data, 32)
    values = dict(zip(names.split(), struct.unpack_from("<Qq14i", data, 48), strict=True))
    lob = head[2] == 1009
    assert head[2] in (1007, 1009) and (attr == 9) == lob and head[1] == (1 if lob else 3)
    assert head[0] == (248 if lob else 240) + 18 * values["columns"]
    assert values["at"] == 32 + head[0] and values["index"] == values["at"] + values["size"]
    assert values["occupy"] == 32 + payload and values["data_version"] == data_version
    data_checksum, compressor = struct.unpack_from("<q96s", data, 32 + 88)
    encrypt, _, _, sequence, partition = struct.unpack_from("<qq16sqq", data, 32 + 192)
    assert encrypt == 0
    chained, at = 0, values["at"]
    for _ in range(values["micros"]):
        magic, length, version, folded, reserved = struct.unpack_from("<hbbHh", data, at)
        plain, stored, one = struct.unpack_from("<qqq", data, at + 8)
        assert (magic, length, version) == (1010 if lob else 1005, 32, 2)
        assert folded == word(length, magic, version, reserved, data[at + 8 : at + 32])
        body = data[at + 32 : at + 32 + stored]
        assert one == crc(body)
        if stored < plain:
            assert len(lz4.block.decompress(body, uncompressed_size=plain)) == plain
        chained = crc(struct.pack("<q", one), chained)
        at += 32 + stored
    assert at == values["index"] and chained == data_checksum
    values |= {"sequence": sequence, "partition": partition, "checksum": data_checksum, "lob": lob}
    return values | {"compressor": compressor.rstrip(b"\0").decode()}


def test_every_block_that_sql_lists_is_in_the_file(site):
    listed = rows(site, "__all_virtual_partition_sstable_macro_info")
    assert len(listed) > 150
    for row in listed:
        server = int(row["svr_ip"].rsplit(".", 1)[1])
        found = check_block(block(site, server, row["macro_idx_in_data_file"]))
        assert found["table_id"] == row["table_id"] and found["partition"] == row["partition_id"]
        assert found["data_version"] == row["macro_data_version"] and found["sequence"] == row["data_seq"]
        assert (found["rows"], found["occupy"], found["micros"]) == (
            row["row_count"],
            row["occupy_size"],
            row["micro_block_count"],
        )
        assert found["checksum"] == row["data_checksum"] and found["compressor"] == row["compressor_name"]
        assert found["lob"] == (row["macro_block_type"] == "lob_block")
    assert {row["macro_block_type"] for row in listed} == {"data_block", "lob_block"}
    assert any(row["macro_data_version"] < row["data_version"] for row in listed)


def test_the_ledger_has_the_digest_of_every_block(site):
    held = {n: [] for n in (1, 2, 3)}
    for pg in read_ledger(site)["pgs"]:
        assert len(pg["replicas"]) == 3
        for replica in pg["replicas"]:
            for table in replica["sstables"]:
                for index, _, _, occupy, _, _, _, digest in table["blocks"]:
                    data = block(site, replica["server"], index)
                    assert hashlib.sha256(data[:occupy]).hexdigest() == digest
                    held[replica["server"]].append(index)
    for indexes in held.values():
        assert len(indexes) == len(set(indexes)) and min(indexes) >= 2


def test_majors_hold_the_same_rows_on_all_replicas(site):
    for pg in read_ledger(site)["pgs"]:
        majors = [
            [
                (table["index_id"], table["version"], row[4], row[5])
                for table in replica["sstables"]
                if table["table_type"] == 1
                for row in table["blocks"]
            ]
            for replica in pg["replicas"]
        ]
        assert majors[0] and majors.count(majors[0]) == len(majors)


def test_super_blocks_are_there_twice(site):
    for row in rows(site, "__all_virtual_macro_block_marker_status"):
        server = int(row["svr_ip"].rsplit(".", 1)[1])
        file = site / f"observer_{server}/store/sstable/block_file"
        assert file.stat().st_size == row["total_count"] * MIB2
        assert struct.unpack_from("<ii", block(site, server, 0)) == (3, 1018)
        assert block(site, server, 0) == block(site, server, 1)
        used = row["data_count"] + row["lob_data_count"] + row["bloomfilter_count"] + row["reserved_count"]
        assert used + row["free_count"] == row["total_count"]


def test_growing_frees_and_writes_blocks(tmp_path):
    create(tmp_path / "site", Plan(seed=2, observers=1, pgs=2, blocks=6, block_size=16 << 10, log_size=1 << 16))

    def blocks():
        (document,) = [read_ledger(tmp_path / "site")]
        return {
            (row[0], row[7])
            for pg in document["pgs"]
            for replica in pg["replicas"]
            for table in replica["sstables"]
            for row in table["blocks"]
        }

    before = blocks()
    grow(tmp_path / "site", major=False)
    middle = blocks()
    assert before < middle
    grow(tmp_path / "site", major=False)
    assert middle - blocks()
    grow(tmp_path / "site", major=True)
    after = blocks()
    kept, gone = before & after, before - after
    assert kept and gone and after - middle


def test_freed_blocks_are_soon_used_again_when_few_are_free(tmp_path):
    directory = tmp_path / "site"
    create(directory, Plan(seed=2, observers=1, pgs=2, blocks=6, block_size=16 << 10, log_size=1 << 16, spare=4))

    def where():
        return {
            row[0]: row[7]
            for pg in read_ledger(directory)["pgs"]
            for replica in pg["replicas"]
            for table in replica["sstables"]
            for row in table["blocks"]
        }

    used_again = 0
    for _ in range(4):
        before = where()
        grow(directory)
        after = where()
        used_again += sum(before[index] != after[index] for index in before.keys() & after.keys())
        for index, digest in after.items():
            data = block(directory, 1, index)
            assert hashlib.sha256(data[: check_block(data)["occupy"]]).hexdigest() == digest
    assert used_again


def test_the_sys_tenants_log_is_in_the_clogs_and_apart_in_the_ledger(tmp_path):
    directory = tmp_path / "site"
    create(directory, Plan(seed=2, observers=2, pgs=2, blocks=1, block_size=16 << 10, log_size=1 << 16, sys_pgs=1))
    grow(directory)
    ledger = read_ledger(directory)
    (own,) = ledger["sys_pgs"]
    assert own["tenant_id"] == 1 and own["logs"]
    assert {pg["tenant_id"] for pg in ledger["pgs"]} == {1001}
    assert {row["tenant_id"] for row in rows(directory, "__all_root_table")} == {1}
    assert {row["tenant_id"] for row in rows(directory, "__all_virtual_meta_table")} == {1001}
    assert 1 in {row["table_id"] >> 40 for row in rows(directory, "__all_virtual_clog_stat")}
    assert (directory / "observer_1/store/clog/2").read_bytes().count(struct.pack(">Q", own["table_id"])) > 2


def test_the_same_seed_gives_the_same_blocks(site, tmp_path):
    create(tmp_path / "site", PLAN)
    for _ in range(3):
        grow(tmp_path / "site")
    assert read_ledger(tmp_path / "site") == read_ledger(site)
    for server in (1, 2, 3):
        total = (site / f"observer_{server}/store/sstable/block_file").stat().st_size // MIB2
        for index in range(total):
            with (site / f"observer_{server}/store/sstable/block_file").open("rb") as one:
                one.seek(index * MIB2)
                with (tmp_path / f"site/observer_{server}/store/sstable/block_file").open("rb") as other:
                    other.seek(index * MIB2)
                    assert one.read(64 << 10) == other.read(64 << 10)


async def test_the_tables_can_be_asked_by_sql(site, mariadb):
    connection = await asyncmy.connect(
        host="127.0.0.1", port=mariadb.port, user=mariadb.user, password=mariadb.password
    )
    try:
        document = json.loads((site / "catalog.json").read_text())
        await load(document, connection)
        await load(document, connection)  # again is anew
        async with connection.cursor() as cursor:
            await cursor.execute(
                "select m.svr_ip, count(*), sum(occupy_size)"
                " from oceanbase.__all_virtual_partition_sstable_macro_info m"
                " join oceanbase.__all_server s on m.svr_ip = s.svr_ip and m.svr_port = s.svr_port group by m.svr_ip"
            )
            counted = {ip: (count, int(size)) for ip, count, size in await cursor.fetchall()}
            await cursor.execute("select last_index_log_id, start_id from oceanbase.__all_virtual_clog_stat")
            stats = await cursor.fetchall()
            await cursor.execute("select tenant_id, tenant_name from oceanbase.__all_tenant order by 1")
            tenants = [tuple(row) for row in await cursor.fetchall()]
            assert tenants == [(1, "sys"), (1001, "tenant_1001"), (1002, "tenant_1002")]
    finally:
        connection.close()
    listed = rows(site, "__all_virtual_partition_sstable_macro_info")
    for ip, (count, size) in counted.items():
        mine = [row["occupy_size"] for row in listed if row["svr_ip"] == ip]
        assert (count, size) == (len(mine), sum(mine))
    assert len(counted) == 3
    assert all(never == 2**64 - 1 for never, _ in stats)
