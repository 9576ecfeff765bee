"""The sstables of a PG's replica: what a major merge and minor compactions leave.

Sources: observer notes 2.4 (data_seq), 2.7 (table types), 3.5 (versions and the blocks an sstable takes over).
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

from mover.store.sim.blockfile import BlockFile
from mover.store.sim.identity import PgKey
from mover.store.sim.macroblock import Block, BlockPlan, bloom_block, build_block, data_seq
from mover.store.sim.packing import dice

MAJOR, MINOR, MINI = 1, 4, 7


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a PG: its table and the indexes that have sstables, the table itself first."""

    table_id: int
    partition_id: int
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A macro block in the block_file, with what SQL and the ledger tell of it."""

    index: int
    data_version: int
    data_seq: int
    occupy_size: int
    row_count: int
    micro_blocks: int
    data_checksum: int
    row_count_delta: int
    lob: bool
    compressor: str
    sha256: str


@dataclass
class SSTable:
    """One sstable; versions and times as the virtual tables have them."""

    table_type: int
    table_id: int
    index_id: int
    partition_id: int
    version: int
    base_version: int
    multi_version_start: int
    snapshot_version: int
    start_log_ts: int
    end_log_ts: int
    schema_version: int
    blocks: list[StoredBlock] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, record: dict[str, Any]) -> SSTable:
        return cls(**{**record, "blocks": [StoredBlock(**block) for block in record["blocks"]]})


@dataclass
class Holdings:
    """The sstables of one PG on one server, and the counter that numbers their blocks."""

    key: PgKey
    server: int
    partitions: tuple[Partition, ...]
    tables: list[SSTable] = field(default_factory=list)
    sequence: int = 0

    def record(self) -> dict[str, Any]:
        return {
            "key": self.key.order,
            "server": self.server,
            "partitions": [asdict(partition) for partition in self.partitions],
            "tables": [table.record() for table in self.tables],
            "sequence": self.sequence,
        }

    @classmethod
    def of(cls, record: dict[str, Any]) -> Holdings:
        return cls(
            PgKey(*record["key"]),
            record["server"],
            tuple(Partition(p["table_id"], p["partition_id"], tuple(p["indexes"])) for p in record["partitions"]),
            [SSTable.of(table) for table in record["tables"]],
            record["sequence"],
        )


@dataclass(frozen=True, slots=True)
class Merger:
    """Makes sstables and writes their blocks."""

    seed: int
    file: BlockFile
    block_size: int
    schema_version: int

    def major(self, holdings: Holdings, version: int, snapshot: int, blocks: int) -> None:
        """The first major of every index (``blocks`` in the PG), or the next one.

        The next one takes over about two thirds of the blocks of the one before; the rest is written anew. Minors up to
        the snapshot are in it and go.
        """
        indexes = [(part, index) for part in holdings.partitions for index in part.indexes]
        kept: list[SSTable] = []
        freed: list[int] = []
        for at, (part, index) in enumerate(indexes):
            share = max(1, blocks // len(indexes) + (at < blocks % len(indexes)))
            choose = dice(self.seed, "major", holdings.key.order, part.table_id, index, version)
            old = self._current_major(holdings, part, index)
            table = self._table(MAJOR, part, index, version, 0, snapshot, snapshot, snapshot)
            if old is None:
                for ordinal in range(share):
                    lob = ordinal == share - 1 and share > 2 and part.table_id % 2 == 1 and index == part.table_id
                    table.blocks.append(self._write(holdings, part, index, version, ordinal, lob, minor=False))
            else:
                for ordinal, block in enumerate(old.blocks):
                    if choose.random() < 0.66:
                        table.blocks.append(block)
                    else:
                        freed.append(block.index)
                        table.blocks.append(
                            self._write(holdings, part, index, version, ordinal, block.lob, minor=False)
                        )
                if choose.random() < 0.5:
                    at_end = len(table.blocks)
                    table.blocks.insert(
                        sum(not block.lob for block in table.blocks),
                        self._write(holdings, part, index, version, at_end, False, minor=False),
                    )
            kept.append(table)
        for table in holdings.tables:
            if table.table_type != MAJOR:
                if table.snapshot_version > snapshot:
                    kept.append(table)
                else:
                    freed += [block.index for block in table.blocks]
        holdings.tables = kept
        self.file.release(freed)

    def minor(self, holdings: Holdings, version: int, base: int, snapshot: int) -> None:
        """A memtable of each partition's table becomes a mini minor; three of them are merged into a minor."""
        for part in holdings.partitions:
            index = part.indexes[0]
            minors = [
                table
                for table in holdings.tables
                if table.table_type != MAJOR and table.index_id == index and table.partition_id == part.partition_id
            ]
            start = max([base, *(table.snapshot_version for table in minors)])
            merge = len(minors) >= 2
            kind = MINOR if merge else MINI
            first = min((table.base_version for table in minors), default=start) if merge else start
            table = self._table(kind, part, index, version, first, snapshot, first, snapshot)
            for ordinal in range(2 if merge else 1):
                table.blocks.append(self._write(holdings, part, index, version, ordinal, False, minor=True))
            if merge:
                holdings.tables = [table for table in holdings.tables if table not in minors]
                self.file.release([block.index for table in minors for block in table.blocks])
            holdings.tables.append(table)

    def bloom(self, holdings: Holdings, version: int) -> None:
        """A bloom filter block beside the PG's first minor. Nothing lists it, as nothing backs it up."""
        part = holdings.partitions[0]
        key = f"{self.seed}/bloom/{holdings.server}/{holdings.key.order}/{version}"
        self.file.write(bloom_block(part.indexes[0], part.partition_id, version, 100, key))

    @staticmethod
    def _current_major(holdings: Holdings, part: Partition, index: int) -> SSTable | None:
        for table in holdings.tables:
            if (table.table_type, table.index_id, table.partition_id) == (MAJOR, index, part.partition_id):
                return table
        return None

    def _table(
        self, kind: int, part: Partition, index: int, version: int, base: int, snapshot: int, start: int, end: int
    ) -> SSTable:
        multi = snapshot if kind == MAJOR else base
        schema = self.schema_version
        return SSTable(
            kind, part.table_id, index, part.partition_id, version, base, multi, snapshot, start, end, schema
        )

    def _write(
        self, holdings: Holdings, part: Partition, index: int, version: int, ordinal: int, lob: bool, *, minor: bool
    ) -> StoredBlock:
        holdings.sequence += minor
        sequence = holdings.sequence if minor else ordinal
        # Replicas agree on a major's rows; their merges number the blocks as they ran in parallel, or not.
        place = (holdings.key.order, part.table_id, part.partition_id, index, version, sequence, minor)
        size = (
            self.block_size // 4 if minor else self.block_size * dice(self.seed, "size", place).randint(60, 99) // 100
        )
        plan = BlockPlan(
            key="/".join(map(str, (*place, holdings.server if minor else 0))),
            table_id=index,
            partition_id=part.partition_id,
            data_version=version,
            data_seq=data_seq(sequence, parallel=holdings.server % 2, lob=lob, minor=minor),
            size=size,
            columns=2 + index % 5,
            rowkey_columns=1 + (index != part.table_id),
            lob=lob,
            multi_version=minor,
        )
        block = build_block(plan, self.seed)
        return self._stored(block, plan, self.file.write(block.bytes))

    @staticmethod
    def _stored(block: Block, plan: BlockPlan, index: int) -> StoredBlock:
        return StoredBlock(
            index,
            plan.data_version,
            plan.data_seq,
            len(block.bytes),
            block.row_count,
            block.micro_block_count,
            block.data_checksum,
            block.row_count_delta,
            plan.lob,
            block.compressor,
            hashlib.sha256(block.bytes).hexdigest(),
        )
