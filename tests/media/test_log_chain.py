"""The log of a PG block by block: what continues, and what is said of what does not."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mover.errors import IntegrityError
from mover.kernel import ob_crc64
from mover.media.archive import ArchiveBlock, ArchiveBlockMeta, build_block, build_kickoff_block, parse_block
from mover.media.log_chain import Position, walk_block
from mover.media.log_entry import Kickoff, LogType, log_entry, next_accum
from mover.media.pg import PGKey

TABLE = 1001 << 40 | 50_001
PG = PGKey(TABLE, 0, 4)
BEFORE = Position(19, 0xABCD, 100, 100, 7)


def block(ids: Sequence[int], *, kind: int = LogType.SUBMIT, pg: PGKey = PG, **meta: int) -> ArchiveBlock:
    payload = b"".join(log_entry(kind, pg, number, b"body %d" % number, timestamp=100 + number) for number in ids)
    return sealed(payload, ids, **meta)


def sealed(payload: bytes, ids: Sequence[int], **meta: int) -> ArchiveBlock:
    accum = BEFORE.accum
    for number in ids:
        accum = next_accum(accum, ob_crc64(b"body %d" % number))
    facts = ArchiveBlockMeta(200, 7, accum, ids[0], 100, ids[-1], 150, 100 + ids[-1], len(payload))
    made = build_block(replace(facts, **meta), payload, offset=0)  # type: ignore[arg-type]
    return parse_block(made, offset=0)


def test_a_block_that_continues() -> None:
    found = walk_block(block([20, 21, 22]), BEFORE, table_id=TABLE)
    assert (found.first_log_id, found.end.log_id, found.end.checkpoint_ts) == (20, 22, 150)
    assert found.notes == ()
    # Where nothing is known before it, its own word is taken.
    alone = walk_block(block([20, 21, 22]), None, table_id=TABLE)
    assert alone.end == found.end


def test_a_kickoff_begins_a_chain() -> None:
    made = build_kickoff_block(PG, 20, Kickoff(100, 90, 80), timestamp=1, accum_checksum=0xABCD, start_submit_ts=100)
    found = walk_block(parse_block(made, offset=0), None, table_id=TABLE)
    assert (found.first_log_id, found.start_log_id, found.end.log_id, found.end.accum) == (None, 20, 19, 0xABCD)
    assert found.kickoff == Kickoff(100, 90, 80)
    assert walk_block(block([20]), found.end, table_id=TABLE).end.log_id == 20


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (block([21, 22]), "log id 21 at offset 104: expected 20"),
        (block([20, 22]), "log id 22"),
        (block([20, 20]), "log id 20"),
        (block([20], accum_checksum=5), "running checksum"),
        (block([20], max_log_id=21), "expected max log id 20"),
        (block([20], max_checkpoint_ts=99), "its checkpoint 99 is before 100"),
        (block([20], clog_epoch_id=6), "its epoch 6 is before 7"),
        (block([20], pg=PGKey(TABLE + 1, 0, 4)), f"is of table {TABLE + 1}"),
    ],
    ids=["gap", "hole", "twice", "chain", "max", "checkpoint", "epoch", "table"],
)
def test_what_does_not_continue_is_said(made: ArchiveBlock, text: str) -> None:
    with pytest.raises(IntegrityError) as raised:
        walk_block(made, BEFORE, table_id=TABLE)
    assert text in raised.value.message
    assert "offset" in raised.value.where


@pytest.mark.parametrize("kind", [LogType.NOP, LogType.SUBMIT])
def test_a_nop_may_have_its_submit_time_set_late(kind: int) -> None:
    entry = bytearray(log_entry(kind, PG, 20, b"body 20", timestamp=120))
    struct.pack_into(">q", entry, 73, 121)
    made = sealed(bytes(entry), [20])
    if kind == LogType.SUBMIT:
        with pytest.raises(IntegrityError, match="header checksum"):
            walk_block(made, BEFORE, table_id=TABLE)
    else:
        found = walk_block(made, BEFORE, table_id=TABLE)
        assert found.end.log_id == 20
        (note,) = found.notes
        assert "log 20" in note
