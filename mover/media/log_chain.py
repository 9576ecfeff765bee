"""The log of one PG as a chain: ids without a gap, the running checksum, and what a block's meta says about both.

For log of OceanBase's own (and of mover's: the entries are the same). Pure: blocks in, findings out.
"""

from __future__ import annotations

from dataclasses import dataclass

from mover.errors import FormatError, IntegrityError
from mover.kernel import ob_crc64, walk_entries
from mover.media.archive import BLOCK_META_SIZE, ArchiveBlock
from mover.media.log_entry import (
    ENTRY_HEADER_SIZE,
    Kickoff,
    LogEntry,
    LogType,
    iter_log_entries,
    next_accum,
    parse_kickoff,
    parse_log_entry_header,
)

_M32 = (1 << 32) - 1  # a running checksum is a CRC-32C in 64 bits

# OceanBase may set the submit timestamp of these in memory without computing the header checksum again.

_PATCHED = {LogType.NOP, LogType.TRUNCATE}


@dataclass(frozen=True, slots=True)
class Position:
    """Behind a log entry: its id, the running checksum there, its submit and checkpoint time (us), its epoch."""

    log_id: int
    accum: int
    submit_ts: int = 0
    checkpoint_ts: int = 0
    epoch_id: int = 0


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """What the entries of a block are, and the position behind them."""

    first_log_id: int | None  # None: it holds no log, only a kickoff
    end: Position
    kickoff: Kickoff | None
    start_log_id: int  # of the round, when there is a kickoff; else 0
    notes: tuple[str, ...] = ()


def walk_block(block: ArchiveBlock, before: Position | None, *, table_id: int) -> BlockFacts:
    """Verify the entries of a block and that they continue ``before``.

    Args:
        before: the position in front of it; None when that is not known, after a gap or at the start of a chain.
        table_id: the PG's, as its directory has it.

    Raises IntegrityError naming offset and log id: an entry that does not hold or is of another PG, an id or a running
    checksum that does not continue, a checkpoint or an epoch that goes back, a meta that contradicts its entries.
    """
    fast = _walk_fast(block, before, table_id)
    if fast is not None:
        return fast
    meta = block.meta
    base = block.offset + BLOCK_META_SIZE
    notes: list[str] = []
    first: int | None = None
    kickoff: Kickoff | None = None
    start = 0
    accum = before.accum if before is not None else None
    due = before.log_id + 1 if before is not None else None
    for entry in _entries(block, base, notes):
        header = entry.header
        where = base + entry.offset
        if header.pg.table_id != table_id:
            raise IntegrityError(
                f"log {header.log_id} at offset {where} is of table {header.pg.table_id}, not {table_id}",
                offset=where,
                log_id=header.log_id,
            )
        if header.log_type == LogType.ARCHIVE_KICKOFF:
            kickoff, start = parse_kickoff(entry, base_offset=base), header.log_id
            continue
        if due is not None and header.log_id != due:
            raise IntegrityError(
                f"log id {header.log_id} at offset {where}: expected {due}", offset=where, log_id=header.log_id
            )
        if first is None:
            first = header.log_id
        due = header.log_id + 1
        if accum is not None:
            accum = next_accum(accum, header.data_checksum)
    last = due - 1 if first is not None and due is not None else meta.max_log_id
    if accum is None or (first is None and kickoff is not None and before is None):
        accum = meta.accum_checksum  # nothing before it is known: its own word is taken, and checked from here on
    if meta.max_log_id != last or meta.accum_checksum != accum:
        raise IntegrityError(
            f"archive block at offset {block.offset}: expected max log id {last} and running checksum {accum:#x},"
            f" found {meta.max_log_id} and {meta.accum_checksum:#x}",
            offset=block.offset,
            log_id=last,
        )
    if kickoff is not None and start != meta.max_log_id + 1 and first is None:
        raise IntegrityError(
            f"kickoff at offset {block.offset}: it begins with log {start}, but its block ends with {meta.max_log_id}",
            offset=block.offset,
            log_id=start,
        )
    if before is not None and meta.max_checkpoint_ts < before.checkpoint_ts:
        raise _back(block, "checkpoint", meta.max_checkpoint_ts, before.checkpoint_ts)
    if before is not None and meta.clog_epoch_id < before.epoch_id and first is not None:
        raise _back(block, "epoch", meta.clog_epoch_id, before.epoch_id)
    epoch = meta.clog_epoch_id if first is not None or before is None else before.epoch_id
    end = Position(last, accum, meta.max_log_submit_ts, meta.max_checkpoint_ts, epoch)
    return BlockFacts(first, end, kickoff, start, tuple(notes))


def _walk_fast(block: ArchiveBlock, before: Position | None, table_id: int) -> BlockFacts | None:
    """What :func:`walk_block` says of a block of logs that holds; None for any other. The kernel knows no reasons."""
    meta = block.meta
    if before is None:
        run = walk_entries(block.raw(), table_id, -1, 0)
        accum = meta.accum_checksum
    else:
        run = walk_entries(block.raw(), table_id, before.log_id + 1, before.accum & _M32)
        accum = run.accum if run is not None else 0
        if meta.max_checkpoint_ts < before.checkpoint_ts or meta.clog_epoch_id < before.epoch_id:
            return None
    if run is None or meta.max_log_id != run.last_log_id or meta.accum_checksum != accum:
        return None
    end = Position(run.last_log_id, accum, meta.max_log_submit_ts, meta.max_checkpoint_ts, meta.clog_epoch_id)
    return BlockFacts(run.first_log_id, end, None, 0)


def _back(block: ArchiveBlock, what: str, found: int, before: int) -> IntegrityError:
    return IntegrityError(
        f"archive block at offset {block.offset}: its {what} {found} is before {before}, that of the block before it",
        offset=block.offset,
        log_id=block.meta.max_log_id,
    )


def _entries(block: ArchiveBlock, base: int, notes: list[str]) -> list[LogEntry]:
    raw = block.raw()
    try:
        return list(iter_log_entries(raw, base_offset=base))
    except FormatError as error:
        entries = _tolerant(memoryview(raw), base, notes)
        if entries is None:
            raise error from None
        return entries


def _tolerant(view: memoryview, base: int, notes: list[str]) -> list[LogEntry] | None:
    """The entries when only header checksums of NOP and TRUNCATE logs do not hold; None when anything else is wrong."""
    entries: list[LogEntry] = []
    position = 0
    while position < len(view):
        head = view[position : position + ENTRY_HEADER_SIZE]
        try:
            header = parse_log_entry_header(head, checked=False)
            start = position + ENTRY_HEADER_SIZE
            body = view[start : start + header.data_length]
            if len(body) != header.data_length or ob_crc64(body) != header.data_checksum:
                return None
            try:
                parse_log_entry_header(head)
            except FormatError:
                if header.log_type not in _PATCHED:
                    return None
                notes.append(
                    f"log {header.log_id} at offset {base + position}: the header checksum of this NOP does not hold,"
                    " as when OceanBase sets its submit time late"
                )
        except FormatError:
            return None
        entries.append(LogEntry(position, header, body))
        position = start + header.data_length
    return entries
