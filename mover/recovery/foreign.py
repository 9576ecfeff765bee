"""Checking sets and log that OceanBase itself wrote: no manifest vouches for them, only the formats do."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from mover.errors import FormatError, IntegrityError, MoverError, TargetNotFound
from mover.media.archive import ArchiveBlock, check_chain, scan_data_file
from mover.media.archive_index import scan_index_file
from mover.media.frames import FrameReader, iter_frames
from mover.media.header import DataType
from mover.media.layout import FileKind, MediaPath
from mover.media.macro import MacroIndex, MacroIndexDecoder
from mover.repository.tree import name_file
from mover.target.base import Target

Found = list[tuple[str, MoverError]]
Files = list[tuple[str, MediaPath | None]]


async def check_foreign_set(target: Target, files: Files, set_id: int) -> Found:
    """Index against data: every entry of the set's macro indexes names a whole frame of a macro file that is there.

    Args:
        files: every file of the full set's directory, with its parsed path.
        set_id: the backup whose indexes are checked.
    """
    found: Found = []
    frames: dict[str, dict[int, int]] = {}
    indexes: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for path, parsed in files:
        if parsed is not None and parsed.kind is FileKind.MACRO_BLOCK_INDEX and parsed.inc_set == set_id:
            indexes[path.rpartition("/")[0]].append((parsed.retry or 0, path))
    for directory, named in indexes.items():
        decoder = MacroIndexDecoder(strict=False)
        path = directory
        try:
            for _, path in sorted(named):
                data = await target.get(path)
                for frame in iter_frames(data, data_type=DataType.MACRO_DATA_INDEX, strict=False):
                    for _, entry in decoder.feed(frame):
                        if entry is not None:
                            await _check_entry(target, directory, entry, frames)
            decoder.finish()
        except IntegrityError as exc:
            found.append((path, name_file(exc, path)))
        except TargetNotFound as exc:
            found.append(
                (path, IntegrityError(f"{path}: names a macro file that is missing: {exc.message}", path=path))
            )
    return found


async def _check_entry(target: Target, directory: str, entry: MacroIndex, frames: dict[str, dict[int, int]]) -> None:
    path = f"{directory}/macro_block_{entry.backup_set_id}.{entry.sub_task_id}"
    if path not in frames:
        reader = FrameReader(DataType.MACRO_DATA, strict=False)
        sizes: dict[int, int] = {}
        try:
            async for piece in target.stream(path):
                sizes.update((frame.offset, frame.size) for frame in await asyncio.to_thread(reader.feed, piece))
            reader.finish()
        except IntegrityError as exc:
            raise name_file(exc, path) from None
        frames[path] = sizes
    size = frames[path].get(entry.offset)
    if size != entry.data_length:
        raise FormatError(
            f"{path}: the index names a frame of {entry.data_length} bytes at offset {entry.offset},"
            f" there is {'none' if size is None else f'one of {size}'}",
            path=path,
            offset=entry.offset,
        )


async def check_foreign_log(target: Target, files: Files) -> Found:
    """Per PG: blocks decode, ids and running checksum hold from the kickoff on, index records agree with the data."""
    found: Found = []
    data: dict[tuple[int | None, int | None], dict[int, str]] = defaultdict(dict)
    index: dict[tuple[int | None, int | None], list[str]] = defaultdict(list)
    for path, parsed in files:
        if parsed is not None and parsed.kind is FileKind.ARCHIVE_DATA:
            data[parsed.table_id, parsed.partition_id][parsed.file_id or 0] = path
        elif parsed is not None and parsed.kind is FileKind.ARCHIVE_INDEX:
            index[parsed.table_id, parsed.partition_id].append(path)
    for pg in data.keys() | index.keys():
        promised: dict[int, tuple[str, int]] = {}
        for path in index[pg]:
            records = scan_index_file(await target.get(path)).records
            promised |= {record.data_file_id: (path, record.max_log_id) for record in records if record.is_valid}
        for file_id, (path, _) in promised.items():
            if file_id not in data[pg]:
                found.append((path, IntegrityError(f"{path}: data file {file_id} is missing", path=path)))
        state: tuple[int, int] | None = None
        path = ""
        try:
            for file_id, path in sorted(data[pg].items()):
                scanned = await asyncio.to_thread(scan_data_file, await target.get(path))
                last = scanned.blocks[-1].meta.max_log_id if scanned.blocks else 0
                torn = scanned.torn
                if torn is not None and (torn.followed_by is not None or last < promised.get(file_id, ("", 0))[1]):
                    raise FormatError(f"{path}: {torn.reason}", path=path, offset=torn.offset)
                blocks = scanned.blocks
                if blocks and (state is None or blocks[0].kickoff() is not None):
                    state, blocks = _begin(blocks, state)
                if state is not None:
                    state = await asyncio.to_thread(check_chain, blocks, *state)
        except IntegrityError as exc:
            found.append((path, name_file(exc, path)))
    return found


def _begin(
    blocks: tuple[ArchiveBlock, ...], state: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, tuple[ArchiveBlock, ...]]:
    """(running checksum, next log id) from a kickoff; without one nothing is known before the first block's end."""
    first = blocks[0].meta
    if blocks[0].kickoff() is not None or state is None:
        return (first.accum_checksum, first.max_log_id + 1), blocks[1:]
    return state, blocks
