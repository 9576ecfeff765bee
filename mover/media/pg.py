"""The partition group key: the unit of replication and of backup."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# OceanBase 3.1: the id of a tablegroup carries this bit inside the low 40 bits of a table id.
TABLEGROUP_MASK = 1 << 39
TENANT_SHIFT = 40
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

    @property
    def tenant_id(self) -> int:
        return self.table_id >> TENANT_SHIFT

    @property
    def partition_id(self) -> int:
        """The number in directory names. Two-level partitions are not made by the stores mover captures."""
        return self.part_id

    def pack(self) -> bytes:
        """16 bytes, big-endian: table_id, part_id, assist_id."""
        return _WIRE.pack(self.table_id, self.part_id, self.assist_id)

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> PGKey:
        return cls(*_WIRE.unpack(data))

    def __str__(self) -> str:
        return f"{self.table_id}/{self.partition_id}"
