"""How far log holds by what is cheap to look at: names, index records, and the last block of each PG's newest file."""

from __future__ import annotations

from mover.errors import FormatError, IntegrityError, TargetNotFound
from mover.media.archive import BLOCK_META_SIZE, TAIL_SIZE, parse_block, tail_offset
from mover.media.block_stream import BadRun, BlockStream
from mover.recovery.findings import LogReach, Read, Span
from mover.recovery.foreign_infos import Run
from mover.recovery.foreign_log import FIRST_FILE, read_index
from mover.recovery.foreign_tree import TreeFile, in_order
from mover.target.base import Target


async def quick_reach(target: Target, run: Run, pg: tuple[int, int], read: Read) -> LogReach:
    """The reach of one PG's log in a run of pieces. What is inside complete files is taken on trust."""
    checkpoint = run.start_ts
    last_id = 0
    for piece in run.pieces:
        log = piece.pgs.get(pg)
        if log is None:
            continue
        index = await read_index(target, log, read)
        reason = index.findings.damages[0].message if index.findings.damages else ""
        recorded = {number: record for number, (record, _) in index.records.items() if record.is_valid}
        last = max([*log.data, *recorded], default=0)
        for number, _, _ in in_order({*log.data, *index.records}, FIRST_FILE):
            record = recorded.get(number)
            if number in index.records and record is None:
                continue  # nothing usable is in it
            if number not in log.data:
                return _broken(pg, last_id, checkpoint, f"data file {number} is missing ({log.directory}/{number})")
            if record is None:
                if number != last:
                    return _broken(pg, last_id, checkpoint, reason or f"data file {number} has no index record")
                end, torn = await _newest(target, log.data[number], read)
                if end is not None:
                    last_id, checkpoint = end
                if torn:
                    return _broken(pg, last_id, checkpoint, torn)
            else:
                last_id, checkpoint = record.max_log_id, record.max_checkpoint_ts
        if reason and not recorded:
            return _broken(pg, last_id, checkpoint, reason)
    return LogReach(pg[0], pg[1], (Span(0, last_id, run.start_ts, checkpoint, begins_round=True),))


def _broken(pg: tuple[int, int], last_id: int, checkpoint: int, reason: str) -> LogReach:
    return LogReach(pg[0], pg[1], (Span(0, last_id, 0, checkpoint, begins_round=True, ended_by=reason),))


async def _newest(target: Target, file: TreeFile, read: Read) -> tuple[tuple[int, int] | None, str]:
    """((last log id, checkpoint), why it is torn) of the newest file of a PG."""
    try:
        if file.size >= BLOCK_META_SIZE + TAIL_SIZE:
            start = tail_offset(await target.get(file.path, file.size - TAIL_SIZE, TAIL_SIZE), file.size)
            if start is not None:
                data = await target.get(file.path, start, file.size - start)
                read(file.path, len(data))
                try:
                    block = parse_block(data, offset=start, base_offset=start)
                except FormatError:
                    pass
                else:
                    if block.end == file.size:
                        return (block.meta.max_log_id, block.meta.max_checkpoint_ts), ""
        return await _whole(target, file, read)
    except (TargetNotFound, IntegrityError) as exc:
        return None, exc.message


async def _whole(target: Target, file: TreeFile, read: Read) -> tuple[tuple[int, int] | None, str]:
    stream = BlockStream(file.size)
    end: tuple[int, int] | None = None
    async for piece in target.stream(file.path, 0, file.size):
        for item in stream.feed(piece):
            if isinstance(item, BadRun):
                return end, f"{item.reason} ({file.path})"
            end = (item.meta.max_log_id, item.meta.max_checkpoint_ts)
    read(file.path, file.size)
    torn = stream.finish()
    if torn is None:
        return end, ""
    return end, f"torn tail of {file.path} at offset {torn.offset}: {torn.reason}"
