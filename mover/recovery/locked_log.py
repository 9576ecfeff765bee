"""Checking encrypted log without its key: what blocks and index records say, held against each other."""

from __future__ import annotations

import asyncio

from mover.errors import IntegrityError
from mover.media.archive import DataFile, scan_data_file
from mover.media.sealed_log import is_sealed
from mover.repository.rounds import RoundReader
from mover.repository.tree import name_file


async def check_locked_log(reader: RoundReader, checkpoint_scn: int) -> list[str]:
    """Every block whole, log ids without a gap, index records as the files are, and as far as the checkpoint says.

    Returns the paths of the data files that were checked. Raises IntegrityError naming the first file that is not so.
    """
    records, _, _ = await reader.index_records()
    checked: list[str] = []
    last_id: int | None = None
    last_ts, torn = 0, ""
    for file_id, _ in await reader.data_files():
        path, data = await reader.read(file_id)
        scanned = await asyncio.to_thread(scan_data_file, data)
        record = records.get(file_id)
        valid = record is not None and record.is_valid
        if scanned.torn is not None:
            if scanned.torn.followed_by is not None or (valid and not scanned.blocks):
                raise IntegrityError(f"{path}: {scanned.torn.reason}", path=path, offset=scanned.torn.offset)
            torn = path
        try:
            first, last = _ids(scanned)
        except IntegrityError as exc:
            raise name_file(exc, path) from None
        if record is not None and valid and (record.min_log_id, record.max_log_id) != (first, last):
            raise IntegrityError(
                f"{path}: holds log ids {first} to {last}, but its index record says {record.min_log_id} to"
                f" {record.max_log_id}",
                path=path,
            )
        if first is not None and last is not None:
            if last_id is not None and first != last_id + 1:
                where = torn or path
                raise IntegrityError(f"{where}: log {first} follows log {last_id} in {path}", path=where)
            last_id, last_ts = last, scanned.blocks[-1].meta.max_log_submit_ts
        checked.append(path)
    if last_ts < checkpoint_scn // 1000:
        where = torn or (checked[-1] if checked else "the round")
        text = f"{where}: log ends at {last_ts} us, but the checkpoint of the round is SCN {checkpoint_scn}"
        raise IntegrityError(text, path=where if checked else None)
    return checked


def _ids(scanned: DataFile) -> tuple[int | None, int | None]:
    """First and last log id in a file; none for a kickoff. Raises IntegrityError when ids go back inside of it."""
    first = last = None
    for block in scanned.blocks:
        if not is_sealed(block) and block.kickoff() is not None:
            continue
        if first is None:
            first = block.meta.min_log_id_in_file
        if block.meta.max_log_id < (last if last is not None else first):
            raise IntegrityError(
                f"block at offset {block.offset} ends at log {block.meta.max_log_id}, one before it at {last}",
                offset=block.offset,
            )
        last = block.meta.max_log_id
    return first, last
