"""Archive files: torn tails, damage, chains, and the kernel's framing of the same bytes."""

from __future__ import annotations

import random
import struct

import media_samples as made
import pytest
from hypothesis import given
from hypothesis import strategies as st
from palf_log import LogWriter

from mover.errors import FormatError, IntegrityError
from mover.kernel import (
    PalfBlockHeader,
    palf_block_header_build,
    palf_frame_groups,
    palf_unframe,
    palf_walk,
)
from mover.media.archive import (
    MAX_RAW_PAYLOAD,
    ArchiveBlockMeta,
    block_size,
    build_block,
    check_chain,
    chunk,
    chunk_of,
    iter_blocks,
    last_block,
    scan_data_file,
    tail_offset,
    unpack_payload,
)
from mover.media.archive_index import (
    ArchiveIndexRecord,
    ArchiveKey,
    ArchiveStart,
    parse_archive_key,
    parse_archive_start,
    parse_index_record,
    scan_index_file,
)
from mover.media.header import Compressor
from mover.media.log_entry import (
    Kickoff,
    LogEntryHeader,
    LogType,
    PalfGroupBody,
    iter_log_entries,
    log_entry,
    murmurhash64a,
    next_accum,
    parse_kickoff,
    parse_log_entry_header,
    parse_palf_group,
    pg_hash,
)
from mover.media.pg import PGKey

i64 = st.integers(-(2**63), 2**63 - 1)
u64 = st.integers(0, 2**64 - 1)
pgs = st.builds(PGKey, u64, st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
headers = st.builds(
    LogEntryHeader,
    log_type=st.integers(0, 2**31 - 1),
    pg=pgs,
    log_id=u64,
    data_length=st.integers(0, 2**63 - 1),
    data_checksum=i64,
    generation_timestamp=i64,
    submit_timestamp=st.integers(0, 2**63 - 1),
    epoch_id=i64,
    freeze_version=i64,
    proposal_server=st.builds(lambda ip, port: ip << 32 | port, st.integers(0, 2**31 - 1), st.integers(0, 65535)),
    proposal_timestamp=i64,
    batch_committed=st.booleans(),
    transaction=st.booleans(),
)
DATA = made.archive_file()


@given(headers)
def test_entry_headers_round_trip(header: LogEntryHeader) -> None:
    data = header.pack()
    assert len(data) == 105
    assert parse_log_entry_header(data) == header


def test_known_hashes() -> None:
    """MurmurHash64A of the empty string and of a known text; the hash of a PG chains its three parts."""
    assert murmurhash64a(b"") == 0
    pg = PGKey(1, 2, 3)
    first = murmurhash64a(struct.pack("<Q", 1))
    assert pg_hash(pg) == murmurhash64a(struct.pack("<i", 3), murmurhash64a(struct.pack("<i", 2), first))


@given(st.builds(ArchiveBlockMeta, i64, i64, i64, u64, i64, u64, i64, i64, st.just(3)), st.integers(0, 2**31 - 1))
def test_blocks_round_trip(meta: ArchiveBlockMeta, offset: int) -> None:
    data = build_block(meta, b"abc", offset=0)
    (block,) = iter_blocks(data)
    assert block.size == len(data) == block_size(3)
    assert block.raw() == b"abc"
    assert (block.meta.timestamp, block.meta.output_bytes) == (meta.timestamp, 3)
    moved = build_block(meta, b"abc", offset=offset)
    assert tail_offset(moved[-4:], offset + len(moved)) == offset


@pytest.mark.parametrize("compressor", [Compressor.NONE, Compressor.LZ4, Compressor.ZSTD_1_3_8])
def test_a_chain_holds_through_the_file(compressor: Compressor) -> None:
    blocks = tuple(iter_blocks(made.archive_file(compressor)))
    accum, next_id = check_chain(blocks, 0, 11)
    assert (accum, next_id) == (blocks[-1].meta.accum_checksum, 16)
    assert blocks[0].kickoff() == Kickoff(made.T0, made.T0 - 1, made.T0 - 2)
    assert blocks[1].kickoff() is None
    for wrong in ((0, 12), (1, 11)):
        with pytest.raises(IntegrityError):
            check_chain(blocks, *wrong)
    with pytest.raises(IntegrityError):
        check_chain(blocks[2:], 0, 11)


def test_the_kernel_frames_the_same_entries() -> None:
    """The bulk framing of the kernel and the readable codec here are two writings of one format."""
    scn = made.T0 * 1000
    log = LogWriter()
    data = b"".join(log.group([(scn + 1000 * i, b"payload %d" % i)]) for i in range(4))
    walk = palf_walk(data, 0)
    assert walk.group_count == 4
    header = palf_block_header_build(PalfBlockHeader(0, 0, scn, 2**64 - 1, 0))
    room = bytearray(2 * len(data) + 1000)
    length, accum, count = palf_frame_groups(room, data, 0, walk.groups, made.PG.pack(), 3, 0, header)
    raw = bytes(room[:length])
    assert count == 4
    entries = list(iter_log_entries(raw))
    groups = [parse_palf_group(entry.body) for entry in entries]
    assert b"".join(bytes(group.group) for group in groups) == data
    assert [group.block_header for group in groups] == [header, None, None, None]
    chained = 0
    for entry, group, row in zip(entries, groups, walk.rows(), strict=True):
        assert (entry.header.log_id, group.lsn) == (row.log_id, row.offset)
        assert entry.header.submit_timestamp == row.max_scn // 1000
        ours = log_entry(
            LogType.PALF_GROUP, made.PG, row.log_id, group.pack(), timestamp=row.max_scn // 1000, epoch_id=3
        )
        assert raw[entry.offset : entry.offset + len(ours)] == ours
        chained = next_accum(chained, entry.header.data_checksum)
    assert chained == accum
    assert palf_unframe(raw, 0).accum == accum


@pytest.mark.parametrize("lost", [1, 2, 3, 4, 5, 50, 104, 150, 200])
def test_torn_tails_are_reported_not_raised(lost: int) -> None:
    found = scan_data_file(DATA[:-lost])
    assert len(found.blocks) == 2
    assert found.torn is not None
    assert (found.torn.offset, found.torn.followed_by) == (found.end, None)
    assert found.end + found.torn.bytes_left == len(DATA) - lost
    last = last_block(DATA[:-lost])
    assert last == found.blocks[-1]


def test_damage_in_the_middle_is_not_a_torn_tail() -> None:
    blocks = scan_data_file(DATA).blocks
    bad = bytearray(DATA)
    bad[blocks[1].offset + 120] ^= 1
    found = scan_data_file(bad)
    assert found.torn is not None
    assert found.torn.followed_by == blocks[2].offset
    assert last_block(bad) == blocks[2]  # the tail leads to it: whoever continues must scan, not only jump
    with pytest.raises(FormatError):
        list(iter_blocks(bad))


def test_the_tail_leads_to_the_last_block() -> None:
    blocks = scan_data_file(DATA).blocks
    assert tail_offset(DATA[-4:], len(DATA)) == blocks[-1].offset
    assert last_block(DATA) == blocks[-1]
    assert last_block(b"") is None
    assert last_block(bytes(300)) is None
    assert tail_offset(b"\xff\xff\xff\xff", 1000) is None
    assert tail_offset(b"", 1000) is None


@given(st.binary(max_size=200))
def test_small_or_random_payloads_stay_as_they_are(raw: bytes) -> None:
    packed = chunk(raw, Compressor.ZSTD_1_3_8)
    assert packed is None or len(packed) < len(raw)
    assert packed is None or unpack_payload(packed) == raw


def test_chunks() -> None:
    raw = b"log entry " * 500
    for compressor in (Compressor.LZ4, Compressor.ZSTD_1_3_8):
        packed = chunk(raw, compressor)
        assert packed is not None
        assert unpack_payload(packed) == raw
        assert chunk_of(len(raw), packed[16:], compressor) == packed
        for at in (3, 11, 15):  # version, original length, compressed length
            bad = bytearray(packed)
            bad[at] ^= 1
            with pytest.raises(IntegrityError):
                unpack_payload(bad)
    assert chunk(random.Random(1).randbytes(1000), Compressor.ZSTD_1_3_8) is None
    assert chunk(raw, Compressor.NONE) is None
    with pytest.raises(ValueError, match="not written"):
        chunk(raw, Compressor.SNAPPY)
    assert MAX_RAW_PAYLOAD == 1_966_080


def test_a_giant_chunk_is_refused_before_it_is_unpacked() -> None:
    for length in (2**31 - 1, -1):
        data = struct.pack(">hhiii", 0x4343, 1, 8, length, 4) + b"abcd"
        with pytest.raises(IntegrityError):
            unpack_payload(data)


records = st.builds(
    ArchiveIndexRecord, u64, i64, i64, i64, i64, u64, i64, u64, i64, i64, i64, u64, i64, i64, i64, i64, st.booleans()
)


@given(records, st.booleans(), u64, i64, i64)
def test_fixed_records_round_trip(record: ArchiveIndexRecord, first: bool, number: int, a: int, b: int) -> None:
    assert parse_index_record(record.pack()) == record
    key = ArchiveKey(first, number, record)
    assert len(key.pack()) == 168
    assert parse_archive_key(key.pack()) == key
    start = ArchiveStart(a, b)
    assert parse_archive_start(start.pack()) == start


def test_an_index_file_ends_at_its_first_bad_record() -> None:
    good = [made.index_record(number).pack() for number in (1, 2, 3)]
    assert [r.data_file_id for r in scan_index_file(b"".join(good)).records] == [1, 2, 3]
    torn = scan_index_file(b"".join(good)[:-1])
    assert (len(torn.records), torn.bad_offset) == (2, 288)
    swapped = scan_index_file(good[0] + good[2] + good[1])
    assert (len(swapped.records), swapped.bad_offset) == (2, 288)
    assert swapped.reason is not None


@given(st.binary(max_size=300))
def test_random_bytes_give_format_errors_only(data: bytes) -> None:
    assert scan_data_file(data).blocks == ()
    last_block(data)
    scan_index_file(data)
    unpacked = data
    try:
        unpacked = unpack_payload(data)
        list(iter_log_entries(unpacked))
    except IntegrityError:
        pass
    for parse in (parse_index_record, parse_archive_key, parse_archive_start, parse_log_entry_header):
        with pytest.raises(FormatError):
            parse(data)
    try:
        parse_palf_group(data)
    except FormatError:
        pass


@given(st.integers(0, 2**63 - 1), st.booleans(), st.binary(max_size=99))
def test_group_bodies_round_trip(lsn: int, first: bool, group: bytes) -> None:
    body = PalfGroupBody(lsn, bytes(48) if first else None, memoryview(group))
    assert parse_palf_group(body.pack()) == body


def test_only_kickoffs_have_a_kickoff() -> None:
    entry = next(iter_log_entries(scan_data_file(DATA).blocks[1].raw()))
    with pytest.raises(FormatError, match="log type 401"):
        parse_kickoff(entry)
