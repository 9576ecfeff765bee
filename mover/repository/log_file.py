"""An archived data file, read and verified as far as it can be without its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from mover.encryption.cipher import Keys
from mover.errors import IntegrityError
from mover.kernel import palf_unframe, palf_walk
from mover.media.archive import ArchiveBlock, TornTail, scan_data_file
from mover.media.log_entry import Kickoff
from mover.media.pg import PGKey
from mover.media.sealed import Opening
from mover.media.sealed_log import is_sealed, key_id, opened
from mover.store.base import LogCursor
from mover.target.base import Buffer


@dataclass(frozen=True, slots=True)
class LogRun:
    """Whole PALF groups that follow each other in one log file of the store, verified."""

    lsn: int
    end_lsn: int
    data: bytes
    block_header: bytes | None  # of the store's log file, when ``lsn`` is its first byte
    min_scn: int
    max_scn: int
    cursor: LogCursor  # behind the run


@dataclass(frozen=True, slots=True)
class DataFileSummary:
    """What is usable in one data file."""

    file_id: int
    path: str
    size: int
    runs: tuple[LogRun, ...]
    kickoff: Kickoff | None
    first_log_id: int  # 0: no log in it
    last_log_id: int
    min_log_ts: int  # us
    max_log_ts: int
    max_checkpoint_ts: int
    epoch: int
    accum: int | None  # the archive's running checksum at the end
    input_bytes: int
    output_bytes: int
    torn: TornTail | None
    key_id: str = ""  # of the data key its log is encrypted with

    @property
    def usable(self) -> bool:
        return bool(self.runs)


def check_run(run: LogRun, expected: LogCursor, path: str) -> None:
    """The run continues ``expected``: log ids and PALF's own accumulated checksum."""
    walk = palf_walk(run.data, run.lsn, accum=expected.accum, log_id=_next_id(expected))
    if walk.end_lsn != run.end_lsn:
        raise IntegrityError(
            f"{path}: log at LSN {walk.end_lsn} does not continue what precedes it: {walk.reason}",
            path=path,
            lsn=walk.end_lsn,
        )


def summarize(file_id: int, path: str, data: Buffer, accum: int | None, pg: PGKey, keys: Keys) -> DataFileSummary:
    """Verify a data file: blocks, entries, running checksum, PALF groups.

    Raises IntegrityError for damage, EncryptionKeyError when it is encrypted with a key that is not at hand.
    """
    scanned = scan_data_file(data)
    if scanned.torn is not None and scanned.torn.followed_by is not None:
        raise IntegrityError(
            f"{path}: {scanned.torn.reason}, and more blocks follow", path=path, offset=scanned.torn.offset
        )
    kickoff: Kickoff | None = None
    runs: list[LogRun] = []
    first_id = last_id = min_ts = max_ts = checkpoint = epoch = 0
    sealed_with = ""
    for stored in scanned.blocks:
        block = stored
        if is_sealed(stored):
            sealed_with = key_id(stored)
            block = opened(stored, Opening.of(path, keys))
        elif sealed_with:
            text = f"{path}: block at offset {stored.offset} is not encrypted, and the one before it is"
            raise IntegrityError(text, path=path, offset=stored.offset)
        checkpoint = max(checkpoint, block.meta.max_checkpoint_ts)
        # A kickoff stands at the start of a file; looking for one decompresses the block.
        if block.offset == 0 and (found := block.kickoff()) is not None:
            kickoff = found
            continue
        made, accum, first = _runs_of_block(block, path, accum, pg, runs[-1].cursor if runs else None)
        if not runs:
            first_id, min_ts = first, block.meta.min_log_ts_in_file
        runs.extend(made)
        last_id, max_ts = block.meta.max_log_id, block.meta.max_log_submit_ts
        epoch = max(epoch, block.meta.clog_epoch_id)
    return DataFileSummary(
        file_id=file_id,
        path=path,
        size=len(data),
        runs=tuple(runs),
        kickoff=kickoff,
        first_log_id=first_id,
        last_log_id=last_id,
        min_log_ts=min_ts,
        max_log_ts=max_ts,
        max_checkpoint_ts=checkpoint,
        epoch=epoch,
        accum=accum if runs else None,
        input_bytes=sum(block.meta.input_bytes for block in scanned.blocks),
        output_bytes=scanned.end,
        torn=scanned.torn,
        key_id=sealed_with,
    )


def _runs_of_block(
    block: ArchiveBlock, path: str, accum: int | None, pg: PGKey, expected: LogCursor | None
) -> tuple[list[LogRun], int, int]:
    """The runs of one block, the running checksum after it, and its first log id."""
    raw = block.raw()
    frames = palf_unframe(raw, 0 if accum is None else accum)
    after = block.meta.accum_checksum if accum is None else frames.accum
    rows = list(frames.rows())
    if not rows or frames.pg_key != pg.pack():
        raise IntegrityError(
            f"{path}: block at offset {block.offset} has no log of PG {pg}", path=path, offset=block.offset
        )
    if after != block.meta.accum_checksum:
        raise IntegrityError(
            f"{path}: the running checksum breaks in the block at offset {block.offset}",
            lsn=rows[0].lsn,
            path=path,
            offset=block.offset,
        )
    if rows[-1].log_id != block.meta.max_log_id:
        raise IntegrityError(
            f"{path}: block at offset {block.offset} ends at log {rows[-1].log_id}", path=path, offset=block.offset
        )
    runs: list[LogRun] = []
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and not rows[end].has_block_header:
            continue
        part = rows[start:end]
        data = b"".join(raw[row.group_offset : row.group_offset + row.group_size] for row in part)
        head = part[0]
        header = bytes(raw[head.group_offset - 48 : head.group_offset]) if head.has_block_header else None
        walk = palf_walk(
            data,
            head.lsn,
            accum=expected.accum if expected else None,
            log_id=_next_id(expected),
        )
        if walk.end != len(data) or walk.first_log_id != head.log_id:
            raise IntegrityError(
                f"{path}: log group at LSN {walk.end_lsn} does not hold: {walk.reason}",
                lsn=walk.end_lsn,
                path=path,
                offset=block.offset,
            )
        if expected is not None and expected.lsn != head.lsn:
            raise IntegrityError(
                f"{path}: LSN {expected.lsn} is followed by {head.lsn} in the block at offset {block.offset}",
                path=path,
                offset=block.offset,
            )
        expected = LogCursor(walk.end_lsn, walk.last_log_id, walk.accum, walk.max_scn)
        runs.append(LogRun(head.lsn, walk.end_lsn, data, header, walk.min_scn, walk.max_scn, expected))
        start = end
    return runs, after, rows[0].log_id


def _next_id(cursor: LogCursor | None) -> int | None:
    return None if cursor is None or cursor.log_id is None else cursor.log_id + 1
