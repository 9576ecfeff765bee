"""The info files of a tree. Data-backup notes 2.5 and 2.6, log-archive notes 2.6 and 2.7."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mover.store.sim.identity import PgKey
from mover.store.sim.packing import crc, unis, vint
from tree31.forms import (
    BACKUPS,
    DIAGNOSE,
    LOCALITY,
    NAMES,
    PG_LIST,
    PIECES,
    ROUNDS,
    SET_INFO,
    SINGLE_PIECE,
    TENANTS,
    array,
    fixed,
    info_file,
    vstr,
)
from tree31.spec import TreeSpec

CLUSTER_VERSION = 3 << 32 | 1 << 16
STOP, BEGINNING, DOING = 1, 2, 3


@dataclass
class BackupEntry:
    """One backup of one tenant."""

    set_id: int
    full_id: int
    version: int
    snapshot: int
    prev: tuple[int, int, int]
    full: bool
    status: int
    date: int


@dataclass
class RoundEntry:
    """One round of one tenant."""

    number: int
    start_ts: int
    checkpoint_ts: int
    status: int
    piece: int = 0
    first_piece: int = 0


@dataclass
class PieceEntry:
    """One piece of one tenant's round; ``status`` 0 active, 2 frozen."""

    number: int
    round: int
    date: int
    start_ts: int
    checkpoint_ts: int
    max_ts: int
    status: int


def backup_infos(spec: TreeSpec, entries: list[BackupEntry]) -> bytes:
    items = []
    for one in entries:
        numbers = (one.full_id, one.set_id, one.version, one.snapshot, one.snapshot - 3, one.snapshot - 9)
        numbers += (one.snapshot - 11, *one.prev, spec.compatible, CLUSTER_VERSION)
        late = [vint(one.date)] if spec.later else []
        tail = (vint(1 if one.full else 2), vint(one.status), vint(0), fixed(""), b"\0")
        items.append(unis(*map(vint, numbers), *tail, *late))
    return info_file(BACKUPS, unis(array(items)))


def set_infos(spec: TreeSpec, rows: list[tuple[int, int, int, int]]) -> bytes:
    """``rows``: set id, snapshot, PGs, macro blocks."""
    items = [
        unis(
            *map(vint, (number, snapshot, spec.compatible, pgs, blocks, blocks << 21, blocks << 14, CLUSTER_VERSION, 1))
        )
        for number, snapshot, pgs, blocks in rows
    ]
    return info_file(SET_INFO, unis(array(items)))


def pg_list(keys: list[PgKey]) -> bytes:
    return info_file(PG_LIST, unis(array([key.disk for key in keys])))


def tenant_infos(tenants: list[tuple[int, str]], snapshot: int) -> bytes:
    items = [unis(vint(number), vint(0), vint(0), vint(0), fixed(name), vint(snapshot)) for number, name in tenants]
    return info_file(TENANTS, unis(array(items)))


def tenant_names(tenants: list[tuple[int, str]], timestamp: int) -> bytes:
    items = [
        unis(vstr(name.encode()), b"\1", array([unis(vint(number), vint(timestamp))]))
        for number, name in sorted(tenants, key=lambda one: one[1])
    ]
    return info_file(NAMES, unis(vint(timestamp - 1), vint(len(items))) + b"".join(items), data_version=1)


def locality(tenant: int, name: str, set_id: int, snapshot: int) -> bytes:
    body = unis(*map(vint, (tenant, set_id, snapshot, 0)), fixed(name), fixed("FULL{1}@zone_1"), fixed("zone_1"))
    return info_file(LOCALITY, body)


def diagnose(tenant: int, set_id: int) -> bytes:
    return info_file(DIAGNOSE, f"\ntenant_id:{tenant}\nbackup_set_id:{set_id}\nlocality:FULL\n".encode())


def rounds(spec: TreeSpec, tenant: int, entries: list[RoundEntry]) -> bytes:
    items = []
    for one in entries:
        numbers = (tenant, one.start_ts, one.checkpoint_ts, 1, one.number, one.status)
        late = [vint(one.piece), vint(one.first_piece)] if spec.later else []
        items.append(unis(*map(vint, numbers), b"\0", b"\1", vint(min(spec.compatible, 2)), *late))
    return info_file(ROUNDS, unis(array(items)), data_version=1)


def piece_info(tenant: int, one: PieceEntry) -> bytes:
    numbers = (
        1,
        tenant,
        one.round,
        one.number,
        0,
        one.date,
        one.start_ts,
        one.checkpoint_ts,
        one.max_ts,
        one.status,
        0,
    )
    return unis(*map(vint, numbers), fixed("file:///backup"), vint(2), vint(1))


def piece_infos(tenant: int, entries: list[PieceEntry]) -> bytes:
    return info_file(PIECES, unis(array([piece_info(tenant, one) for one in entries])), data_version=1)


def single_piece(tenant: int, one: PieceEntry) -> bytes:
    return info_file(SINGLE_PIECE, piece_info(tenant, one), data_version=1)


def start_timestamp(number: int, timestamp: int) -> bytes:
    """clog_info: what a server wrote when a round began."""
    return struct.pack(">qqq", crc(struct.pack("<qq", number, timestamp)), number, timestamp)
