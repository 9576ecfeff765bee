"""An archive round of one PG of a cluster at the destination: where its log ends.

The counterpart of :mod:`mover.repository.rounds` for logs that are OceanBase's own entries, one per log id.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from mover.errors import IntegrityError
from mover.media.archive import check_chain, scan_data_file
from mover.media.archive_index import ArchiveIndexRecord, parse_archive_key
from mover.media.log_entry import LogEntry, iter_log_entries
from mover.media.pg import PGKey
from mover.repository.rounds import RoundReader
from mover.repository.tree import Repository, name_file


@dataclass(frozen=True, slots=True)
class PGRoundTail:
    """Where an archiver of the PG goes on."""

    start: ArchiveIndexRecord  # any record of the round: its ``round_*`` fields
    last_log_id: int
    accum: int
    last_submit_ts: int  # us
    checkpoint_ts: int
    last_file_id: int
    unrecorded: ArchiveIndexRecord | None  # the record that the newest data file still lacks
    index: tuple[int, int, int]  # of the index file to go on with: id, bytes of whole records, size
    newest_record: ArchiveIndexRecord | None


async def pg_round_tail(repository: Repository, round_id: int, pg: PGKey) -> PGRoundTail | None:
    """Find the end of what is archived; None when the PG has no archive key: nothing of it was.

    Raises IntegrityError when the files contradict each other.
    """
    layout, tenant = repository.layout, repository.tenant_id
    key = await repository.read(layout.archive_key(tenant, round_id, pg), parse_archive_key)
    if key is None:
        return None
    reader = RoundReader(repository, round_id, pg)
    records, index_id, index_size = await reader.index_records()
    files = [number for number, _ in await reader.data_files()]
    last, recorded = max(files, default=0), max(records, default=0)
    directory = layout.archive_data_dir(tenant, round_id, pg)
    if recorded > last:
        raise IntegrityError(
            f"{directory}/{recorded}: this data file has an index record, but it is not there",
            path=f"{directory}/{recorded}",
            hint="archived log was removed from the destination: stop the round and begin a new one",
        )
    if last > recorded + 1:
        raise IntegrityError(
            f"{directory}/{recorded + 2}: data files {recorded + 1} to {last} have no index record",
            path=f"{directory}/{recorded + 2}",
            hint="at most the newest data file may lack one: index files were lost, or two archivers wrote",
        )
    newest = records[recorded] if records else None
    known = newest or key.index
    end = (
        (known.max_log_id, known.accum_checksum)
        if newest
        else (known.round_start_log_id - 1, known.round_accum_checksum)
    )
    unrecorded = None
    if last > recorded:
        path = layout.archive_data(tenant, round_id, pg, last)
        data = await repository.target.get(path)
        try:
            unrecorded = await asyncio.to_thread(_record_of, data, path, last, known, end, newest is None)
        except IntegrityError as exc:
            raise name_file(exc, path) from None
        end = unrecorded.max_log_id, unrecorded.accum_checksum
    info = await repository.target.stat(layout.archive_index(tenant, round_id, pg, index_id)) if index_id else None
    final = unrecorded or known
    return PGRoundTail(
        start=known,
        last_log_id=end[0],
        accum=end[1],
        last_submit_ts=final.max_log_submit_ts,
        checkpoint_ts=final.max_checkpoint_ts,
        last_file_id=last,
        unrecorded=unrecorded,
        index=(index_id, index_size, info.size if info else 0),
        newest_record=newest,
    )


def _record_of(
    data: bytes, path: str, file_id: int, known: ArchiveIndexRecord, end: tuple[int, int], first: bool
) -> ArchiveIndexRecord:
    """The record of a data file whose writer died, from its good blocks. Raises IntegrityError."""
    scanned = scan_data_file(data)
    if scanned.torn is not None and scanned.torn.followed_by is not None:
        raise IntegrityError(
            f"{path}: {scanned.torn.reason}, and more blocks follow", path=path, offset=scanned.torn.offset
        )
    blocks = scanned.blocks
    begins = first and bool(blocks) and blocks[0].kickoff() is not None
    if begins:
        blocks = blocks[1:]
    base = replace(
        known, data_file_id=file_id, input_bytes=0, output_bytes=scanned.end, accum_checksum=end[1],
        min_log_id=end[0], min_log_ts=known.max_log_submit_ts, max_log_id=end[0], is_valid=begins,
    )  # fmt: skip
    if begins:
        kickoff = scanned.blocks[0].meta
        base = replace(
            base,
            input_bytes=kickoff.input_bytes,
            min_log_ts=kickoff.min_log_ts_in_file,
            max_checkpoint_ts=kickoff.max_checkpoint_ts,
            max_log_submit_ts=kickoff.max_log_submit_ts,
        )
    if not blocks:
        return base
    check_chain(blocks, end[1], end[0] + 1)
    meta = blocks[-1].meta
    entry = _first_entry(blocks[0].raw())
    return replace(
        base,
        input_bytes=sum(block.meta.input_bytes for block in blocks),
        clog_epoch_id=meta.clog_epoch_id,
        accum_checksum=meta.accum_checksum,
        min_log_id=entry.header.log_id,
        min_log_ts=entry.header.submit_timestamp,
        max_log_id=meta.max_log_id,
        max_checkpoint_ts=meta.max_checkpoint_ts,
        max_log_submit_ts=meta.max_log_submit_ts,
        is_valid=True,
    )


def _first_entry(raw: bytes) -> LogEntry:
    return next(iter_log_entries(raw))
