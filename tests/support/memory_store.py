"""A store in memory: macroblocks of every kind and a PALF log that grows, behind the protocols of mover.store.base.

Plans of archive, backup and restore run on it in milliseconds, and what a restored store must hold is known exactly:
:meth:`MemoryStore.image` is the store as of a log position.
"""

from __future__ import annotations

import random
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from palf_log import LogWriter, crc

from mover.errors import LogGapError, PreconditionError, SourceError
from mover.kernel import macroblock_check, palf_walk, xxh3_128
from mover.kernel.palf import PalfBlockHeader, palf_block_header_build
from mover.media.pg import PGKey
from mover.store.base import (
    MACRO_BLOCK_SIZE,
    BlockIdentity,
    CapturedBlock,
    CaptureResult,
    LogChunk,
    LogCursor,
    SlabSource,
    StoreFile,
    StoreIdentity,
    UnchangedBlock,
)

FIRST_SCN = 1_790_000_000_000_000_000  # ns
STEP = 1_000_000  # ns between log entries
BLOCKS = 32
PG = PGKey.of_log_stream(1, 1)
FAR = 1 << 62


def sstable_block(tablet_id: int, version: int, seq: int, content: bytes) -> bytes:
    """A block of kind 1 as the engine writes it: common header, sstable header, content."""
    header = struct.pack(
        "<IHHQqqiiiiiiiiiiiiq", 88, 2, 1007, tablet_id, version, seq, *([0] * 12), crc(content)
    )  # fmt: skip
    payload = header + content
    return struct.pack("<iiiiiI", 24, 1, 1001, 1, len(payload), crc(payload)) + payload


def linked_block(content: bytes) -> bytes:
    """A block of kind 2."""
    return struct.pack("<iiiiiI", 24, 1, 1001, 2, len(content), crc(content)) + content


def shared_block(kind: int, content: bytes) -> bytes:
    """A block of kind 7 or 8: no payload size, no checksum, ends with its last byte that is not zero."""
    return struct.pack("<iiiiiI", 24, 1, 1001, kind, 0, 0) + content + b"\x01"


@dataclass(frozen=True)
class Image:
    """The store at one moment."""

    blocks: Mapping[int, bytes]
    files: tuple[StoreFile, ...]
    end_lsn: int
    end_scn: int


@dataclass
class MemoryStore:
    """Implements Store. ``palf_file`` is the size of a log file; the engine's 64 MiB would make tests slow.

    Args:
        seed: of all content.
        on_pass: called between the two passes of a capture, where a live engine would change blocks.
    """

    seed: int = 1
    palf_file: int = 64 << 10
    first_lsn: int = 0
    on_pass: Callable[[], None] | None = None
    blocks: dict[int, bytes] = field(default_factory=dict)
    slog: bytearray = field(default_factory=bytearray)
    recycled: int = 0  # log before this LSN is gone from the engine
    holds: dict[str, int] = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)
    captures: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.log_writer = LogWriter(lsn=self.first_lsn)
        self.recycled = self.first_lsn
        self.scn = FIRST_SCN
        self.version = 1
        self.group_ends: list[tuple[int, int]] = []  # (LSN behind the group, its max SCN)

    # --- what happens in the store -----------------------------------------------------------------------------

    @property
    def end_lsn(self) -> int:
        return self.log_writer.lsn + len(self.log_writer.data)

    def write_log(self, groups: int = 1, *, entries: int = 2, size: int = 300) -> None:
        """Commit groups of log; a file that cannot take the next one is filled with padding, as the engine does."""
        for _ in range(groups):
            body = [(self._tick(), self.random.randbytes(self.random.randint(1, size))) for _ in range(entries)]
            need = 48 + sum(32 + len(data) for _, data in body)
            left = self.palf_file - self.end_lsn % self.palf_file
            # What is left must take the group and still a padding group, or be filled exactly.
            if left < need + 48 + 32 + 16:
                self._group([(self.scn, bytes(left - 48 - 32))], padding=True)
            self._group(body)

    def _group(self, entries: list[tuple[int, bytes]], *, padding: bool = False) -> None:
        self.log_writer.group(entries, padding=padding)
        self.group_ends.append((self.end_lsn, entries[-1][0]))

    def _tick(self) -> int:
        self.scn += STEP
        return self.scn

    def change(self, count: int = 3) -> None:
        """Rewrite, add and free some blocks, and log it."""
        self.version += 1
        for _ in range(count):
            index = self.random.randrange(2, BLOCKS)
            kind = self.random.choice((1, 1, 2, 7, 8))
            content = self.random.randbytes(self.random.randint(1, 4000))
            if self.random.random() < 0.5:
                content = content[:16] * (len(content) // 16 + 1)  # one that compresses
            if kind == 1:
                block = sstable_block(200_000 + index % 5, self.version, index, content)
            else:
                block = linked_block(content) if kind == 2 else shared_block(kind, content)
            self.blocks[index] = block
        if len(self.blocks) > 8 and self.random.random() < 0.5:
            del self.blocks[self.random.choice(sorted(self.blocks))]
        self.slog += self.random.randbytes(40)
        self.write_log(self.random.randint(1, 4))

    def recycle(self, lsn: int) -> None:
        """The engine unlinks log files that end at or before ``lsn``."""
        self.recycled = max(self.recycled, lsn // self.palf_file * self.palf_file)

    def image(self) -> Image:
        """The store now."""
        end_lsn, end_scn = self.group_ends[-1] if self.group_ends else (self.first_lsn, 0)
        return Image(dict(self.blocks), self.files(), end_lsn, end_scn)

    def log_until(self, start_lsn: int, end_lsn: int) -> bytes:
        base = self.log_writer.lsn
        return bytes(self.log_writer.data[start_lsn - base : end_lsn - base])

    def files(self) -> tuple[StoreFile, ...]:
        size = BLOCKS * MACRO_BLOCK_SIZE
        page = bytes([self.version % 255 + 1]) * 4096
        return (
            StoreFile("sstable/block_file", size, ((0, page), (MACRO_BLOCK_SIZE, page))),
            StoreFile("slog/sys/1", 1 << 20, ((0, bytes(self.slog)),)),
            StoreFile("redo/sys/log_stream/meta/0", 8192, ((0, b"meta" * 100),)),
        )

    # --- Store -------------------------------------------------------------------------------------------------

    async def identity(self) -> StoreIdentity:
        return StoreIdentity(
            kind="seekdb",
            version="4.3.5.3",
            cluster_name="seekdb",
            cluster_id=1,
            tenant_id=1,
            tenant_name="sys",
            server_ip="127.0.0.1",
            server_port=2881,
            pg=PG,
            parameters={"log_disk_size": "2G"},
        )

    async def capture(self, slabs: SlabSource) -> MemoryCapture:
        self.captures += 1
        return MemoryCapture(self, slabs)

    async def log(self, holder: str) -> MemoryLog:
        if holder in self.holders:
            raise PreconditionError(f"another mover process holds the log as {holder!r}")
        self.holders.add(holder)
        return MemoryLog(self, holder)

    async def aclose(self) -> None:
        pass


def identify(index: int, block: bytes) -> BlockIdentity:
    """What a reader learns from the block's own header."""
    found = macroblock_check(block)
    assert found.ok, found.reason
    if found.kind != 1:
        return BlockIdentity(index, found.kind, found.used_length)
    return BlockIdentity(
        index, 1, found.used_length, found.tablet_id, found.logical_version, found.data_seq, found.payload_checksum,
        found.data_checksum,
    )  # fmt: skip


class MemoryCapture:
    """Two passes: all blocks, then those that changed meanwhile; implements Capture."""

    def __init__(self, store: MemoryStore, slabs: SlabSource) -> None:
        self._store = store
        self._slabs = slabs
        self._result: CaptureResult | None = None
        self.closed = False

    async def blocks(
        self, known: Mapping[int, BlockIdentity], digests: Mapping[int, bytes] | None = None
    ) -> AsyncIterator[CapturedBlock | UnchangedBlock]:
        store = self._store
        start_lsn = max(store.recycled, store.end_lsn // store.palf_file * store.palf_file - store.palf_file)
        first = dict(store.blocks)
        for index, block in sorted(first.items()):
            yield await self._one(index, block, known)
        if store.on_pass is not None:
            store.on_pass()
        for index, block in sorted(store.blocks.items()):
            if first.get(index) != block:
                yield await self._one(index, block, known)
        image = store.image()
        self._result = CaptureResult(
            live=frozenset(store.blocks),
            files=image.files,
            block_file_size=BLOCKS * MACRO_BLOCK_SIZE,
            start_lsn=start_lsn,
            end_lsn=image.end_lsn,
            end_scn=image.end_scn,
            proof={"method": "memory"},
            tables=({"tablet_id": 200_001, "table_name": "t"},),
        )

    async def _one(
        self, index: int, block: bytes, known: Mapping[int, BlockIdentity]
    ) -> CapturedBlock | UnchangedBlock:
        identity = identify(index, block)
        if identity.immutable and known.get(index) == identity:
            return UnchangedBlock(identity)
        slab = await self._slabs.acquire()
        slab.buffer[: len(block)] = block
        return CapturedBlock(identity, slab, xxh3_128(slab.buffer[: identity.used_length]))

    @property
    def result(self) -> CaptureResult:
        if self._result is None:
            raise SourceError("the blocks were not read to the end")
        return self._result

    async def aclose(self) -> None:
        self.closed = True


class MemoryLog:
    """Implements LogSource."""

    def __init__(self, store: MemoryStore, holder: str) -> None:
        self._store = store
        self._holder = holder
        self._open = True

    def _oldest(self) -> int:
        held = self._store.holds.get(self._holder, FAR) // self._store.palf_file * self._store.palf_file
        return max(self._store.first_lsn, min(self._store.recycled, held))

    async def begin_lsn(self) -> int:
        return self._oldest()

    async def end(self) -> tuple[int, int]:
        image = self._store.image()
        return image.end_lsn, image.end_scn

    async def hold(self, lsn: int) -> None:
        oldest = self._oldest()
        if lsn < oldest:
            raise LogGapError(f"log [{lsn}, {oldest}) was recycled", from_lsn=lsn, until_lsn=oldest)
        self._store.holds[self._holder] = min(lsn, self._store.holds.get(self._holder, FAR))

    async def release(self, lsn: int) -> None:
        if self._holder in self._store.holds:
            self._store.holds[self._holder] = max(lsn, self._store.holds[self._holder])

    async def read(self, cursor: LogCursor, limit: int) -> LogChunk | None:
        store, oldest = self._store, self._oldest()
        if cursor.lsn > store.end_lsn:
            raise SourceError(f"the log ends at lsn {store.end_lsn}, before lsn {cursor.lsn}")
        if cursor.lsn == store.end_lsn:
            return None
        if cursor.lsn < oldest:
            raise LogGapError(f"log [{cursor.lsn}, {oldest}) was recycled", from_lsn=cursor.lsn, until_lsn=oldest)
        file_id, inside = divmod(cursor.lsn, store.palf_file)
        next_id = None if cursor.log_id is None else cursor.log_id + 1
        last = min(store.end_lsn, (file_id + 1) * store.palf_file)
        while True:
            data = store.log_until(cursor.lsn, min(last, cursor.lsn + limit))
            walk = palf_walk(data, cursor.lsn, accum=cursor.accum, log_id=next_id)
            if walk.group_count:
                break
            assert cursor.lsn + limit < last, walk.reason
            limit *= 2  # at least one group, however large it is
        header = None
        if inside == 0:
            header = palf_block_header_build(PalfBlockHeader(0, cursor.lsn, walk.min_scn, 0, file_id))
        return LogChunk(
            start_lsn=cursor.lsn,
            end_lsn=walk.end_lsn,
            data=data[: walk.end],
            block_header=header,
            groups=walk.group_count,
            first_log_id=walk.first_log_id,
            last_log_id=walk.last_log_id,
            min_scn=walk.min_scn,
            max_scn=walk.max_scn,
            table=walk.groups,
            next=LogCursor(walk.end_lsn, walk.last_log_id, walk.accum, walk.max_scn),
        )

    async def aclose(self, *, keep_hold: bool) -> None:
        if self._open:
            self._open = False
            self._store.holders.discard(self._holder)
            if not keep_hold:
                self._store.holds.pop(self._holder, None)
