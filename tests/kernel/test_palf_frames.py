import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from palf_log import LogWriter, chained, crc
from twins import PURE, TWINS, same

from mover.errors import FormatError
from mover.media.pg import PGKey

KEY = PGKey.of_log_stream(1, 1)
M64 = (1 << 64) - 1


def murmur64a(data: bytes, seed: int) -> int:
    """MurmurHash64A of any length, from its definition."""
    m, r = 0xC6A4A7935BD1E995, 47
    h = seed ^ (len(data) * m & M64)
    whole = len(data) // 8 * 8
    for at in range(0, whole, 8):
        k = int.from_bytes(data[at : at + 8], "little") * m & M64
        k ^= k >> r
        k = k * m & M64
        h = (h ^ k) * m & M64
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & M64
    h ^= h >> r
    h = h * m & M64
    return h ^ h >> r


def header_checksum(head: bytes) -> int:
    """OceanBase 3.1's checksum of an ObLogEntryHeader: CRC of the struct as x86 holds it in memory."""
    magic, version, log_type = struct.unpack_from(">hhi", head)
    table, part, assist = struct.unpack_from(">Qii", head, 8)
    log_id, size, generated, epoch = struct.unpack_from(">Qqqq", head, 24)
    ip_version, server, proposed = struct.unpack_from(">bqq", head, 56)
    submitted, data_checksum, freeze = struct.unpack_from(">qqq", head, 73)
    key_hash = murmur64a(struct.pack("<Q", table), 0)
    key_hash = murmur64a(struct.pack("<i", part), key_hash)
    key_hash = murmur64a(struct.pack("<i", assist), key_hash)
    image = struct.pack("<hhi", magic, version, log_type)
    image += struct.pack("<QiiQ", table, part, assist, key_hash)
    image += struct.pack("<Qqqq", log_id, size, generated, epoch)
    image += struct.pack("<iI12xI", ip_version, server >> 32 & 0xFFFFFFFF, server & 0xFFFFFFFF)
    image += struct.pack("<qqqq", proposed, submitted, data_checksum, freeze)
    assert len(image) == 120
    return crc(image)


def some_log(groups: int = 3, size: int = 50, lsn: int = 4096) -> LogWriter:
    writer = LogWriter(lsn)
    for n in range(groups):
        writer.group([(1_795_362_889_143_941_004 + n * 1000, bytes([n + 1]) * size)])
    return writer


def framed(writer: LogWriter, **kwargs):
    walk = same("palf_walk", bytes(writer.data), writer.lsn)
    return same("framed", bytes(writer.data), writer.lsn, walk.groups, KEY.pack(), 9, 0, **kwargs)


def test_an_entry_field_by_field():
    writer = some_log(1)
    payload, accum, count = framed(writer, block_header=bytes(range(48)))
    assert count == 1
    body = struct.pack(">hhiq", 1, 1, 0, 4096) + bytes(range(48)) + bytes(writer.data)
    assert payload[105:] == body
    at_us = 1_795_362_889_143_941
    assert struct.unpack_from(">hhi", payload) == (0x4552, 1, 401)
    assert payload[8:24] == KEY.pack()
    assert struct.unpack_from(">Qqqq", payload, 24) == (1, len(body), at_us, 9)
    assert struct.unpack_from(">bqq", payload, 56) == (4, 0, 0)
    assert struct.unpack_from(">qqq", payload, 73) == (at_us, crc(body), 0)
    assert struct.unpack_from(">q", payload, 97) == (header_checksum(payload),)
    assert accum == chained(crc(body), 0)


def test_header_checksum_vector():
    """Computed once by the reader above: a change of both sides together shows."""
    payload, accum, _ = framed(some_log(1))
    assert (struct.unpack_from(">q", payload, 97)[0], accum) == (0xFCAA511E, 0xDFEBAAE0)


@given(st.integers(1, 5), st.integers(1, 300), st.booleans(), st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1))
def test_round_trip(groups, size, with_header, epoch, accum):
    writer = some_log(groups, size)
    data = bytes(writer.data)
    walk = same("palf_walk", data, writer.lsn)
    header = bytes(range(48)) if with_header else None
    payload, after, count = same("framed", data, writer.lsn, walk.groups, KEY.pack(), epoch, accum, header)
    frames = same("palf_unframe", payload, accum)
    assert (frames.pg_key, frames.entry_count, frames.accum) == (KEY.pack(), groups, after)
    assert count == groups
    for n, (frame, row) in enumerate(zip(frames.rows(), walk.rows(), strict=True)):
        assert payload[frame.group_offset :][: frame.group_size] == data[row.offset :][: row.size]
        assert (frame.lsn, frame.log_id, frame.epoch_id) == (writer.lsn + row.offset, row.log_id, epoch)
        assert frame.submit_ts == row.max_scn // 1000
        assert frame.has_block_header == (with_header and n == 0)
        assert payload[frame.group_offset - 48 : frame.group_offset] == header or not frame.has_block_header


def test_batches_by_size():
    writer = some_log(10)
    one = 105 + 16 + 48 + 32 + 50
    assert framed(writer, max_bytes=3 * one)[2] == 3
    assert framed(writer, max_bytes=3 * one - 1)[2] == 2
    assert framed(writer, max_bytes=3 * one, block_header=bytes(48))[2] == 2
    assert framed(writer, max_bytes=1)[2] == 1
    assert framed(writer, max_bytes=3 * one, start=8)[2] == 2
    assert framed(writer, start=10) == (b"", 0, 0)
    whole, accum, at = b"", 0, 0
    walk = same("palf_walk", bytes(writer.data), writer.lsn)
    while at < walk.group_count:
        piece, accum, taken = same(
            "framed",
            bytes(writer.data),
            writer.lsn,
            walk.groups,
            KEY.pack(),
            9,
            accum,
            start=at,
            max_bytes=2 * one,
        )
        whole += piece
        at += taken
    assert (whole, accum) == framed(writer)[:2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"lsn": -1},
        {"lsn": 1 << 63},
        {"groups": array("q", range(7))},
        {"groups": array("Q", range(8))},
        {"groups": array("Q", [0, 500, 1, 1, 1, 1, 1])},
        {"groups": array("Q", [2**64 - 1, 2, 1, 1, 1, 1, 1])},
        {"pg_key": b"short"},
        {"epoch": -1},
        {"epoch": 1 << 63},
        {"accum": -1},
        {"block_header": b"short"},
        {"start": -1},
        {"start": 2},
    ],
    ids=str,
)
def test_arguments_that_do_not_fit(wrong):
    good = {"buf": bytes(100), "lsn": 0, "groups": array("Q", [0, 100, 1, 1, 1, 1, 1]), "pg_key": bytes(16)}
    good |= {"epoch": 1, "accum": 0}
    assert isinstance(same("framed", **(good | wrong)), ValueError)


@given(st.integers(0, 700))
def test_a_payload_that_does_not_fit_is_refused_before_anything_is_written(room):
    writer = some_log(2, lsn=0)
    walk = same("palf_walk", bytes(writer.data), 0)
    need = len(framed(writer)[0])
    for twin in TWINS.values():
        into = bytearray(room)
        args = (into, bytes(writer.data), 0, walk.groups, KEY.pack(), 9, 0)
        if room >= need:
            assert twin.palf_frame_groups(*args)[0] == need
            continue
        with pytest.raises(ValueError, match=f"{need} bytes of entries do not fit into {room}"):
            twin.palf_frame_groups(*args)
        assert into == bytes(room)
    with pytest.raises((TypeError, BufferError)):
        TWINS["pure"].palf_frame_groups(bytes(need), *args[1:])


@given(st.data())
def test_every_flipped_bit_is_found(draw):
    payload = bytearray(framed(some_log(3), block_header=bytes(range(48)))[0])
    at = draw.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= 1 << draw.draw(st.integers(0, 7))
    error = same("palf_unframe", payload)
    assert isinstance(error, FormatError)
    assert error.where["offset"] <= at


@given(st.integers(0, 1000))
def test_cut_payload_is_found_or_ends_between_entries(cut):
    payload = framed(some_log(3))[0]
    outcome = same("palf_unframe", payload[:cut])
    one = len(payload) // 3
    assert isinstance(outcome, FormatError) != (cut % one == 0 or cut >= len(payload))


def test_dropped_entry_shows_in_the_running_checksum():
    payload, accum, _ = framed(some_log(3))
    one = len(payload) // 3
    assert same("palf_unframe", payload[:one] + payload[2 * one :]).accum != accum


def test_entries_of_two_groups_of_partitions():
    writer = some_log(1)
    walk = same("palf_walk", bytes(writer.data), writer.lsn)
    other = PGKey.of_log_stream(1, 2)
    args = (bytes(writer.data), writer.lsn, walk.groups)
    mixed = PURE.framed(*args, KEY.pack(), 9, 0)[0] + PURE.framed(*args, other.pack(), 9, 0)[0]
    assert "another PG" in str(same("palf_unframe", mixed))


def forged(body: bytes, **wrong) -> bytes:
    """An entry whose checksums are right, whatever it says."""
    fields = {"magic": 0x4552, "version": 1, "type": 401, "table": KEY.table_id, "part": 0, "assist": -1}
    fields |= {"log_id": 1, "size": len(body), "generated": 5, "epoch": 1, "ip": 4, "server": 1 << 62 | 1 << 31}
    fields |= {"proposed": 7, "submitted": 5, "data": crc(body), "freeze": 1}
    fields |= wrong
    head = struct.pack(">hhiQiiQqqqbqqqqq", *fields.values())
    return head + struct.pack(">q", header_checksum(head)) + body


BODY = struct.pack(">hhiq", 1, 0, 0, 4096) + bytes(48)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-128, 127))
def test_forged_headers(number, small):
    assert same("palf_unframe", forged(BODY)).entry_count == 1
    assert same("palf_unframe", forged(BODY, server=number, proposed=number, freeze=number)).entry_count == 1
    for wrong in (
        {"type": 302},
        {"ip": 6},
        {"size": len(BODY) + 1},
        {"size": 15},
        {"size": -1},
        {"size": 2**63 - 1},
        {"submitted": -1},
        {"epoch": -5},
        {"data": 1},
        {"magic": 1},
        {"version": 2},
    ):
        assert isinstance(same("palf_unframe", forged(BODY, **wrong)), FormatError)
    same("palf_unframe", forged(BODY, size=number, ip=small, epoch=number))


@pytest.mark.parametrize(
    "prefix", [(2, 0, 0, 0), (1, 2, 0, 0), (1, -1, 0, 0), (1, 0, 1, 0), (1, 0, 0, -1), (1, 1, 0, 0)], ids=str
)
def test_bodies_that_are_no_wrapped_group(prefix):
    assert isinstance(same("palf_unframe", forged(struct.pack(">hhiq", *prefix) + bytes(50))), FormatError)


@given(st.binary(max_size=400))
def test_any_bytes(data):
    outcome = same("palf_unframe", data)
    assert isinstance(outcome, FormatError) or outcome.entry_count == 0


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_nothing(twin):
    frames = twin.palf_unframe(b"", 5)
    assert (frames.pg_key, frames.entry_count, frames.accum, list(frames.rows())) == (b"", 0, 5, [])
