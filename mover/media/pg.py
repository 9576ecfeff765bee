"""The partition group key: the unit of replication and of backup."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# OceanBase 3.1: the id of a tablegroup carries this bit inside the low 40 bits of a table id.
TABLEGROUP_MASK = 1 << 39
TENANT_SHIFT = 40
TWO_LEVEL_FLAG = 1 << 28  # in part id and subpart id of a table with two levels of partitions
_WIRE = struct.Struct(">Qii")


@dataclass(frozen=True, slots=True, order=True)
class PGKey:
    """Table or tablegroup id plus partition id, as ObPartitionKey has it.

    A log stream of a 4.x store holds many partitions, which is what a binding tablegroup was in 3.1; its key is
    made the same way, so that ``table_id >> 40`` is the tenant as OceanBase's readers expect.
    """

    table_id: int
    part_id: int = 0
    assist_id: int = 0  # partition count, or the sub-partition id of two-level partitions

    @classmethod
    def of_log_stream(cls, tenant_id: int, ls_id: int) -> PGKey:
        """The key of log stream ``ls_id`` of a 4.x tenant."""
        return cls(tenant_id << TENANT_SHIFT | TABLEGROUP_MASK | ls_id)

    @classmethod
    def of_partition(cls, table_id: int, partition_id: int, partition_count: int) -> PGKey:
        """The key of a 3.1 partition: ``partition_id`` as views and directories have it."""
        if partition_id >> 60 & 1:
            return cls(table_id, partition_id >> 32, partition_id & 0xFFFF_FFFF)
        return cls(table_id, partition_id, partition_count)

    @property
    def tenant_id(self) -> int:
        return self.table_id >> TENANT_SHIFT

    @property
    def partition_id(self) -> int:
        """The number in directory names; of two-level partitions part and subpart, which both carry a flag."""
        if self.part_id & TWO_LEVEL_FLAG and self.assist_id & TWO_LEVEL_FLAG:
            return self.part_id << 32 | self.assist_id
        return self.part_id

    def pack(self) -> bytes:
        """16 bytes, big-endian: table_id, part_id, assist_id."""
        return _WIRE.pack(self.table_id, self.part_id, self.assist_id)

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> PGKey:
        return cls(*_WIRE.unpack(data))

    def __str__(self) -> str:
        return f"{self.table_id}/{self.partition_id}"
