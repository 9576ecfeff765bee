"""The data backup of one PG of a 3.1 observer: which sstables it has, and their blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from mover.errors import IntegrityError, SourceError
from mover.media.macro import LogTsRange, TableKey, Version, VersionRange
from mover.media.pg import PGKey
from mover.store.cluster import BlockKey, ClusterBlock, ClusterTable, PGContent, PGPlace
from mover.store.observer.blocks import BlockFile
from mover.store.observer.catalog import Catalog, MacroRow, SSTable

_LOB = "lob_block"
_ATTEMPTS = 3  # at a block that may be in the middle of a write
_TORN_SECONDS = 0.05


class ObserverCapture:
    """See :class:`mover.store.cluster.PGCapture`. Nothing of the server's is held: what changes is found out."""

    def __init__(self, catalog: Catalog, place: PGPlace, block_file: Path) -> None:
        self._catalog = catalog
        self._place = place
        self._path = block_file
        self._file: BlockFile | None = None
        self._rows: dict[TableKey, tuple[MacroRow, ...]] = {}

    async def content(self) -> PGContent:
        """See :class:`mover.store.cluster.PGCapture`."""
        rows: dict[TableKey, tuple[MacroRow, ...]] = {}
        tables: list[ClusterTable] = []
        address = self._place.server.ip, self._place.server.port
        replay_from: int | None = None
        versions: list[int] = []
        for table_id, partition_id in self._place.partitions:
            sstables = await self._catalog.sstables(address, table_id, partition_id)
            macros = {
                index: await self._catalog.macros(address, index, partition_id)
                for index in sorted({found.index_id for found in sstables})
            }
            for found in sstables:
                key = _table_key(found, self._place.pg)
                mine = [row for row in macros[found.index_id] if _belongs(row, found)]
                # Data blocks first, then LOB blocks, each in the order of the sstable.
                mine.sort(key=lambda row: (row.block_type == _LOB, row.index_in_sstable))
                rows[key] = tuple(mine)
                blocks = tuple(
                    BlockKey(row.macro_data_version, row.data_seq, row.data_checksum, row.occupy_size) for row in mine
                )
                tables.append(ClusterTable(key, blocks, max(found.end_log_ts, found.snapshot_version)))
                if found.is_major:
                    versions.append(found.version)
            ends = [max(t.end_log_ts, t.snapshot_version) for t in sstables if t.index_id == table_id]
            newest = max(ends, default=0)
            replay_from = newest if replay_from is None else min(replay_from, newest)
        tables.sort(key=lambda table: (table.key.table_id, table.key.pkey, not table.is_major, table.end_ts))
        self._rows = rows
        return PGContent(self._place, tuple(tables), min(versions, default=0), replay_from or 0)

    async def read(self, table: ClusterTable, numbers: Sequence[int]) -> Sequence[ClusterBlock]:
        """See :class:`mover.store.cluster.PGCapture`."""
        rows = self._rows[table.key]
        if self._file is None:
            self._file = await asyncio.to_thread(BlockFile, self._path)
        return [await self._read(table, rows[number]) for number in numbers]

    async def _read(self, table: ClusterTable, row: MacroRow) -> ClusterBlock:
        reason = ""
        for attempt in range(_ATTEMPTS):
            found, reason = await asyncio.to_thread(self._copy, row)
            if found is not None:
                return found
            await asyncio.sleep(_TORN_SECONDS * (attempt + 1))
        address = self._place.server.ip, self._place.server.port
        now = await self._catalog.macros(address, row.index_id, row.partition_id)
        if row in now:
            raise IntegrityError(
                f"PG {self._place.pg}: block {row.block_index} of {self._path} is damaged: {reason}",
                hint="back up from another replica, and let the server check this one",
                pg=str(self._place.pg),
                path=str(self._path),
            )
        raise SourceError(
            f"PG {self._place.pg}: table {table.key.table_id} was merged while it was copied ({reason})",
            hint="take the backup again, when no major merge runs",
            pg=str(self._place.pg),
            path=str(self._path),
        )

    def _copy(self, row: MacroRow) -> tuple[ClusterBlock | None, str]:
        assert self._file is not None
        data, image = self._file.read(row)
        if image.meta is None:
            return None, image.reason
        return ClusterBlock(image.meta.pack(), bytes(data)), ""

    async def aclose(self) -> None:
        """See :class:`mover.store.cluster.PGCapture`."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _table_key(found: SSTable, pg: PGKey) -> TableKey:
    return TableKey(
        found.table_type,
        PGKey.of_partition(found.table_id, found.partition_id, pg.assist_id),
        found.index_id,
        VersionRange(found.multi_version_start, found.base_version, found.snapshot_version),
        Version(found.version),
        LogTsRange(found.start_log_ts, found.end_log_ts, found.max_log_ts),
    )


def _belongs(row: MacroRow, table: SSTable) -> bool:
    """Is this block one of that sstable's?"""
    return (row.data_version, row.base_version, row.multi_version_start, row.snapshot_version) == (
        table.version,
        table.base_version,
        table.multi_version_start,
        table.snapshot_version,
    )
