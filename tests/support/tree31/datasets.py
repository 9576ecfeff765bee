"""The data backup side: macro files, macro index, metas. Data-backup notes 2.4, 3, 4; observer notes 2.6."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field, replace
from typing import Any

from mover.store.sim.identity import PgKey
from mover.store.sim.macroblock import Block, BlockPlan, build_block, column_arrays, data_seq
from mover.store.sim.packing import crc, dice, fold, unis, vint
from tree31.forms import MACRO_DATA, MACRO_INDEX, META, META_INDEX, frame, framed_file, vstr
from tree31.spec import US, TreeSpec

SCHEMA_VERSION = US + 5


@dataclass(frozen=True)
class Stored:
    """A block in a macro file: where, and what it is."""

    index_id: int
    data_version: int
    data_seq: int
    set_id: int
    sub: int
    offset: int
    length: int
    sha256: str
    minor: bool
    path: str


@dataclass
class PgData:
    """A PG through all backups: the current major's blocks per index table."""

    key: PgKey
    indexes: tuple[int, ...]
    majors: dict[int, list[Stored]] = field(default_factory=dict)


def macro_meta(plan: BlockPlan, block: Block) -> bytes:
    """ObMacroBlockMetaV2, packed little-endian."""
    count = plan.columns
    header = 32 + (248 if plan.lob else 240) + 18 * count
    (index_offset,) = struct.unpack_from("<i", block.bytes, 32 + 72)
    (endkey_offset,) = struct.unpack_from("<i", block.bytes, 32 + 80)
    sums = column_arrays(plan, SEED)[-8 * count :]
    rowkey = vint(plan.rowkey_columns) + b"".join(
        bytes((5, 5, 63, 0)) + vint(block.end_key) for _ in range(plan.rowkey_columns)
    )
    body = b"".join(
        (
            struct.pack("<ihQ", 2, 9 if plan.lob else 1, plan.data_version),
            struct.pack("<hhhhii", count, plan.rowkey_columns, 1, 0, block.row_count, len(block.bytes)),
            struct.pack("<qiiii", block.data_checksum, block.micro_block_count, header, index_offset, endkey_offset),
            sums,
            rowkey,
            struct.pack(
                "<Qqqqhi", plan.table_id, plan.data_seq, SCHEMA_VERSION, US, plan.rowkey_columns, block.row_count_delta
            ),
            struct.pack("<i?iqhqqq", 0, False, 0, plan.partition_id, 1, 0, 0, 0),
            bytes(16),
            struct.pack("<?q", False, 0),
        )
    )
    return struct.pack("<i", 4 + len(body)) + body


def schema_info(plan: BlockPlan) -> bytes:
    count = plan.columns
    arrays = column_arrays(plan, SEED)
    body = struct.pack("<ihhqh", 1, count, plan.rowkey_columns, SCHEMA_VERSION, plan.rowkey_columns) + b"none\0"
    body += arrays[: 10 * count]
    return struct.pack("<i", 4 + len(body)) + body


SEED = 31


def table_key(kind: int, key: PgKey, index_id: int, version: int, snapshot: int) -> bytes:
    ranges = unis(vint(0 if kind == 1 else snapshot - 10), vint(0), vint(snapshot))
    logs = unis(vint(0), vint(0), vint(0)) if kind == 1 else unis(vint(snapshot - 9), vint(snapshot), vint(snapshot))
    return unis(vint(kind), key.disk, vint(index_id), ranges, unis(vint(version)), logs)


class SetWriter:
    """Writes one backup of one tenant into ``files``."""

    def __init__(self, spec: TreeSpec, files: dict[str, bytes], set_id: int, version: int, directory: str) -> None:
        self._spec = spec
        self._files = files
        self._set = set_id
        self._version = version
        self._directory = directory
        self.macro_blocks = 0

    def pg(self, pg: PgData, task: int) -> dict[str, Any]:
        """Macro files and indexes of a PG; what is true of them."""
        spec = self._spec
        base = f"{self._directory}/data/{pg.key.table_id}/{pg.key.part_id}"
        majors: list[tuple[int, list[Stored]]] = []
        queue: list[tuple[int, int, Block, BlockPlan]] = []
        for index_id in pg.indexes:
            old = pg.majors.get(index_id)
            choose = dice(spec.seed, "reuse", pg.key.order, index_id, self._set)
            row: list[Stored] = []
            for ordinal in range(spec.blocks):
                if old is not None and ordinal < len(old) and choose.random() < 0.6:
                    row.append(old[ordinal])
                    continue
                plan = self._plan(pg, index_id, ordinal, minor=False)
                queue.append((index_id, ordinal, build_block(plan, SEED), plan))
                row.append(self._place(plan))
            majors.append((index_id, row))
        split = spec.layout != "2.2.6"
        where = f"{base}/major_data" if split else base
        placed = self._macro_files(where, [(block, plan) for _, _, block, plan in queue], 0, minor=False)
        for (index_id, ordinal, _, _), stored in zip(queue, placed, strict=True):
            row = next(row for known, row in majors if known == index_id)
            row[ordinal] = stored
        pg.majors = dict(majors)
        minor_plan = self._plan(pg, pg.indexes[0], 0, minor=True)
        minor_block = (build_block(minor_plan, SEED), minor_plan)
        snapshot = US + self._version
        if split:
            minors = self._macro_files(f"{base}/minor_data/{task}", [minor_block], 0, minor=True)
            self._index(f"{base}/major_data", pg, [(1, index_id, row) for index_id, row in majors], snapshot)
            self._index(f"{base}/minor_data/{task}", pg, [(7, pg.indexes[0], minors)], snapshot)
        else:
            first = -(-len(queue) // spec.per_file)
            minors = self._macro_files(base, [minor_block], first, minor=True)
            self._index_v1(base, pg, [*majors, (pg.indexes[0], minors)])
        blocks = [stored for _, row in majors for stored in row] + minors
        self.macro_blocks += len(blocks)
        return {
            "pg": pg.key.order,
            "blocks": [
                {
                    "index_id": one.index_id,
                    "data_version": one.data_version,
                    "data_seq": one.data_seq,
                    "backup_set_id": one.set_id,
                    "sub_task_id": one.sub,
                    "offset": one.offset,
                    "data_length": one.length,
                    "sha256": one.sha256,
                    "minor": one.minor,
                    "path": one.path,
                }
                for one in blocks
            ],
        }

    def metas(self, backup: str, pgs: list[PgData], task: int) -> None:
        """meta_file and meta_index_file of a task."""
        kinds = (0, 1, 2, 3) if self._spec.layout == "2.2.6" else (4,)
        frames: list[bytes] = []
        entries: list[bytes] = []
        payload = b""
        offset = 0
        for pg in pgs:
            for kind in kinds:
                opaque = crc(f"{self._spec.seed}/{pg.key.order}/{kind}/{self._set}".encode())
                body = unis(vint(kind), pg.key.disk, vint(opaque), vstr(bytes(64 + opaque % 2000)))
                sums = struct.pack("<iq", len(body), crc(body))
                head = struct.pack("<HHh6x", 1, kind, fold(struct.pack("<HH", 1, kind) + sums)) + sums
                record = vstr(head + body)
                if len(payload) + len(record) > 6000:
                    frames.append(payload)
                    offset += len(frame(META, payload))
                    payload = b""
                place = offset + 48 + len(payload)
                numbers = (kind, pg.key.table_id, pg.key.part_id, place, len(record), task)
                entries.append(unis(*map(vint, numbers)))
                payload += record
        frames.append(payload)
        self._files[f"{backup}/meta_file_{task}"] = framed_file(META, frames)
        half = len(entries) // 2
        pieces = [b"".join(part) for part in (entries[:half], entries[half:]) if part]
        self._files[f"{backup}/meta_index_file_{task}"] = framed_file(META_INDEX, pieces)

    def _plan(self, pg: PgData, index_id: int, ordinal: int, *, minor: bool) -> BlockPlan:
        lob = not minor and ordinal == self._spec.blocks - 1 and index_id == pg.indexes[0]
        sequence = ordinal if not minor else self._set
        return BlockPlan(
            key=f"{self._spec.seed}/{pg.key.order}/{index_id}/{ordinal}/{self._set}/{minor}",
            table_id=index_id,
            partition_id=pg.key.part_id,
            data_version=self._version,
            data_seq=data_seq(sequence, parallel=0, lob=lob, minor=minor),
            size=self._spec.block_size,
            columns=3,
            rowkey_columns=1,
            lob=lob,
            multi_version=minor,
        )

    def _place(self, plan: BlockPlan) -> Stored:
        return Stored(plan.table_id, plan.data_version, plan.data_seq, self._set, 0, 0, 0, "", False, "")

    def _macro_files(
        self, directory: str, blocks: list[tuple[Block, BlockPlan]], first: int, *, minor: bool
    ) -> list[Stored]:
        out = []
        per_file = self._spec.per_file
        for sub, at in enumerate(range(0, len(blocks), per_file), first):
            path = f"{directory}/macro_block_{self._set}.{sub}"
            content = b""
            for block, plan in blocks[at : at + per_file]:
                entry = macro_meta(plan, block) + schema_info(plan)
                one = frame(MACRO_DATA, unis(vstr(entry), vstr(block.bytes)))
                digest = hashlib.sha256(block.bytes).hexdigest()
                stored = replace(self._place(plan), sub=sub, offset=len(content), length=len(one), sha256=digest)
                out.append(replace(stored, minor=minor, path=path))
                content += one
            self._files[path] = content + frame(10, b"")
        return out

    def _index(self, directory: str, pg: PgData, groups: list[tuple[int, int, list[Stored]]], snapshot: int) -> None:
        payloads = []
        for kind, index_id, row in groups:
            group = unis(table_key(kind, pg.key, index_id, self._version, snapshot), vint(len(row)))
            for ordinal, one in enumerate(row):
                numbers = (ordinal, one.data_version, one.data_seq, one.set_id, one.sub, one.offset, one.length)
                group += unis(*map(vint, numbers))
                if ordinal == 1:
                    payloads.append(group)  # a group begins in one frame and ends in the next
                    group = b""
            if group:
                payloads.append(group)
        path = f"{directory}/macro_block_index_{self._set}"
        if self._spec.retries and len(payloads) > 1:
            self._files[path] = framed_file(MACRO_INDEX, payloads[:1])
            self._files[f"{path}.1"] = framed_file(MACRO_INDEX, payloads[1:])
        else:
            self._files[path] = framed_file(MACRO_INDEX, payloads)

    def _index_v1(self, directory: str, pg: PgData, groups: list[tuple[int, list[Stored]]]) -> None:
        entries = []
        for index_id, row in groups:
            for ordinal, one in enumerate(row):
                numbers = (pg.key.table_id, pg.key.part_id, index_id, ordinal, one.data_version, one.data_seq)
                entries.append(unis(*map(vint, (*numbers, one.set_id, one.sub, one.offset, one.length))))
        half = len(entries) // 2
        payloads = [b"".join(entries[:half]), b"".join(entries[half:])]
        self._files[f"{directory}/macro_block_index_{self._set}"] = framed_file(MACRO_INDEX, payloads)
