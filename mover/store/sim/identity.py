"""What servers and PGs are called on disk.

Sources: log-archive notes 0 and 3.4 (PG key and its hash), observer notes 3.2 (ids).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

from mover.store.sim.packing import murmur64a

RPC_PORT = 2882
SQL_PORT = 2881
TABLEGROUP = 1 << 39
"""The flag in the low 40 bits of a tablegroup's id."""


def server_ip(server: int) -> str:
    """Address of observer ``server`` (1, 2, ...)."""
    return f"10.0.{server >> 8}.{server & 255}"


def server_word(server: int) -> int:
    """IPv4 address as a number."""
    return 10 << 24 | server


@dataclass(frozen=True)
class PgKey:
    """A PG: table (or tablegroup) id, partition id, number of partitions."""

    table_id: int
    part_id: int
    part_cnt: int

    @property
    def tenant_id(self) -> int:
        return self.table_id >> 40

    @cached_property
    def disk(self) -> bytes:
        """16 bytes, big-endian."""
        return struct.pack(">Qii", self.table_id, self.part_id, self.part_cnt)

    @cached_property
    def hash(self) -> int:
        value = murmur64a(struct.pack("<Q", self.table_id), 0)
        value = murmur64a(struct.pack("<i", self.part_id), value)
        return murmur64a(struct.pack("<i", self.part_cnt), value)

    @cached_property
    def memory(self) -> bytes:
        """24 bytes, as in memory: the key and its hash, little-endian."""
        return struct.pack("<QiiQ", self.table_id, self.part_id, self.part_cnt, self.hash)

    @property
    def order(self) -> tuple[int, int, int]:
        return self.table_id, self.part_id, self.part_cnt
