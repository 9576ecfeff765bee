import struct
import tracemalloc

import pytest
from clog_log import ClogFile, block, chained, entry, info, packed, padding
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import TWINS, same

from mover.kernel.clog import NOT_PACKED, ClogStop
from mover.media.log_entry import iter_log_entries, next_accum

T = 1_700_000_000_000_000
KEYS = [(1001 << 40 | 50001, 0, 1), (1001 << 40 | 50002, 3, 4), (1002 << 40 | 1 << 39 | 7, 1, 0)]


@st.composite
def files(draw) -> tuple[ClogFile, list[bytes]]:
    """A file of several blocks, and its entries as the archive must have them."""
    file, entries, now = ClogFile(), [], T
    for _ in range(draw(st.integers(1, 4))):
        items = []
        for _ in range(draw(st.integers(0, 5))):
            now += draw(st.integers(0, 1000))
            raw = entry(
                draw(st.sampled_from(KEYS)),
                draw(st.integers(1, 2**40)),
                draw(st.binary(max_size=200)),
                submit=now,
                proposal=draw(st.integers(0, 2**50)),
                epoch=draw(st.integers(0, 2**40)),
                log_type=draw(st.sampled_from([201, 202, 103, 201 | 1 << 31])),
            )
            entries.append(raw)
            kind = draw(st.integers(0, 3))
            items.append(packed(raw, kind) if kind else raw)
            if draw(st.integers(0, 5)) == 0:
                items.append(padding(draw(st.integers(12, 60))))
        file.add(items, now)
    return file, entries


@given(files(), st.binary(max_size=100))
def test_every_entry_comes_back_whole_and_verified(made, behind):
    file, entries = made
    walk = same("clog_walk", bytes(file.data))
    assert (walk.stop, walk.reason, walk.end) == (ClogStop.END, "", len(file.data))
    payload = same("clog_gather", bytes(file.data), walk, range(len(entries)))
    assert payload == b"".join(entries)
    parsed = list(iter_log_entries(payload))
    rows = list(walk.rows())
    for row, found in zip(rows, parsed, strict=True):
        header = found.header
        assert (row.log_id, row.data_checksum) == (header.log_id, header.data_checksum)
        assert (row.submit_ts, row.proposal_ts) == (header.submit_timestamp, header.proposal_timestamp)
        assert walk.pgs[row.pg] == header.pg.pack()
        assert (row.epoch_id, row.log_type & 0x7FFFFFFF) == (header.epoch_id, header.log_type)
    # Whatever follows the last block, the walk ends behind it with the same entries.
    again = same("clog_walk", bytes(file.data) + behind)
    assert (again.end, again.table) == (walk.end, walk.table)


@given(files(), st.data())
def test_twins_agree_on_damage_and_never_let_it_pass(made, data):
    file, _ = made
    bad = bytearray(file.data)
    at = data.draw(st.integers(0, len(bad) - 1))
    bad[at] ^= data.draw(st.integers(1, 255))
    walk, good = same("clog_walk", bytes(bad)), same("clog_walk", bytes(file.data))
    # Only padding is covered by nothing.
    intact = [row for row in good.rows() if row.offset + row.size <= walk.end]
    assert list(walk.rows()) == intact
    cut = data.draw(st.integers(0, len(bad)))
    same("clog_walk", bytes(bad[:cut]))
    same("clog_walk", bytes(bad), min(at, cut))


def test_the_running_checksum_is_that_of_oceanbase():
    raw = [entry(KEYS[0], number, bytes([number]) * number, submit=T) for number in range(1, 4)]
    accum = ours = 0
    for found in iter_log_entries(b"".join(raw)):
        accum = chained(found.header.data_checksum, accum)
        ours = next_accum(ours, found.header.data_checksum)
    assert accum == ours != 0


def test_what_ends_a_walk():
    file = ClogFile()
    file.add([entry(KEYS[0], 1, b"body", submit=T)], T)
    whole, end = bytes(file.data), len(file.data)
    older = block(entry(KEYS[1], 9, b"of the file before", submit=T - 9_000_000), T - 9_000_000)
    cases = {
        ClogStop.END: block(b"", T)[:47],
        ClogStop.INFO: info({KEYS[0]: 1}, T, T),
        ClogStop.STALE: older,
        ClogStop.BAD: b"LB" + bytes(4094),
        ClogStop.PADDING: padding(4096),
    }
    for stop, behind in cases.items():
        walk = same("clog_walk", whole + behind)
        assert (walk.stop, walk.end, walk.blocks) == (stop, end, 1), stop
    for behind in (bytes(5000), b"NL" + bytes(4094)):
        assert same("clog_walk", whole + behind).stop is ClogStop.UNUSED
    # The block before may be in the file before.
    assert same("clog_walk", older, 0, T).stop is ClogStop.STALE
    assert same("clog_walk", older, 0, 0).stop is ClogStop.END
    assert isinstance(same("clog_walk", whole, end + 1), ValueError)


@pytest.mark.parametrize("magic", [0x4301, 0x4302, 0x4303])
def test_a_compressed_entry_cannot_make_us_allocate_what_it_claims(magic):
    bomb = struct.pack(">Hii", magic, 0x7FFFFFFF, 20) + bytes(20)
    tracemalloc.start()
    walk = same("clog_walk", block(bomb, T))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (walk.stop, walk.blocks) == (ClogStop.BAD, 0)
    assert "claims 2147483647" in walk.reason and peak < 1 << 20


def test_an_ipv6_proposal_is_refused_by_name():
    raw = bytearray(entry(KEYS[0], 1, b"x", submit=T))
    raw[56] = 6
    walk = same("clog_walk", block(bytes(raw), T))
    assert walk.stop is ClogStop.BAD and "IP version 6" in walk.reason


@settings(max_examples=20)
@given(st.integers(65, 200))
def test_many_pgs(count):
    items = [entry((1001 << 40 | 50000 + n, n, 0), 1, b"", submit=T) for n in range(count)]
    walk = same("clog_walk", block(b"".join(items), T))
    assert [row.pg for row in walk.rows()] == list(range(count))
    assert all(row.image_offset == NOT_PACKED for row in walk.rows())


def test_gather_refuses_what_is_not_of_the_walk():
    data = block(entry(KEYS[0], 1, b"x", submit=T), T)
    walk = same("clog_walk", data)
    for rows, given_data in (([1], data), ([-1], data), ([0], data[:100])):
        assert isinstance(same("clog_gather", given_data, walk, rows), ValueError)


def test_all_twins_ran():
    assert "pure" in TWINS
