"""What a store is to the rest of mover: blocks to capture, a log to follow, a place to rebuild.

Data flows store -> datapath -> target. A store never knows where its bytes go. All calls are for one PG;
seekdb has one (its log stream).
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mover.media.pg import PGKey

MACRO_BLOCK_SIZE = 2 << 20


class Slab(Protocol):
    """A fixed piece of memory, aligned for O_DIRECT, lent from a pool; whoever holds it last releases it."""

    @property
    def buffer(self) -> memoryview:
        """The whole slab, writable, ``MACRO_BLOCK_SIZE`` bytes."""
        ...

    def release(self) -> None:
        """Give the slab back. Once only."""
        ...


class SlabSource(Protocol):
    """Where slabs come from. Both wait when the memory ceiling is reached."""

    async def acquire(self) -> Slab: ...

    async def take(self, most: int) -> Sequence[Slab]:
        """From one to ``most`` slabs: what there is, after waiting for the first. Granted at once when one is free."""
        ...


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """Facts about the store that is backed up, as its engine tells them."""

    kind: str  # "seekdb"
    version: str  # engine version text
    cluster_name: str
    cluster_id: int
    tenant_id: int
    tenant_name: str
    server_ip: str
    server_port: int
    pg: PGKey
    # Start parameters a restored store needs, in the engine's spelling ("log_disk_size": "2G").
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BlockIdentity:
    """Which macroblock this is, from its own header.

    ``kind`` is the engine's type (attr). For SSTable data blocks (tablet_id, logical_version, data_seq,
    payload_checksum) never change while the block lives, so equal identity at an equal index proves equal
    content. For other kinds the last three are 0 and only the bytes themselves tell.
    """

    block_index: int  # byte offset in block_file / MACRO_BLOCK_SIZE
    kind: int
    used_length: int  # bytes from the start of the block that carry content; the rest reads as zeros
    tablet_id: int = 0
    logical_version: int = 0
    data_seq: int = 0
    payload_checksum: int = 0
    # The sstable header's own (kind 1), the number the engine's catalog shows. Manifests do not keep it.
    data_checksum: int = field(default=0, compare=False)
    # Whether the engine compressed what is in it; None where its header does not say (kinds other than 1).
    engine_compressed: bool | None = field(default=None, compare=False)

    @property
    def immutable(self) -> bool:
        """True when identity alone proves content."""
        return self.kind == 1


@dataclass(slots=True)
class CapturedBlock:
    """A block that was read, and verified and digested while it was read. The receiver releases the slab."""

    identity: BlockIdentity
    slab: Slab
    digest: bytes  # XXH3-128 of ``data``

    @property
    def data(self) -> memoryview:
        return self.slab.buffer[: self.identity.used_length]


@dataclass(frozen=True, slots=True)
class UnchangedBlock:
    """A block proven to be the one in ``known``: by its header, or by the digest of its bytes."""

    identity: BlockIdentity


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A small file of the store (slog, PALF meta, superblocks) as its non-zero extents."""

    path: str  # relative to the store directory, "slog/sys/1"; the superblocks are "sstable/block_file"
    size: int  # logical size to restore, bytes
    extents: tuple[tuple[int, bytes], ...]  # (offset, data), ascending, not overlapping


@dataclass(frozen=True, slots=True)
class CaptureResult:
    """What a finished capture adds to the blocks it yielded.

    ``live`` are the block indexes that belong to the image; of a block yielded twice the later counts.
    Restoring the blocks, the files, and log from ``start_lsn`` to at least ``end_lsn`` gives a store that boots.
    """

    live: frozenset[int]
    files: tuple[StoreFile, ...]
    block_file_size: int
    start_lsn: int  # first log byte the image needs; a log file boundary
    end_lsn: int  # the image is consistent only with log up to here or beyond
    end_scn: int  # SCN that belongs to end_lsn: the earliest moment this image restores to
    proof: Mapping[str, Any]  # how consistency was proven, JSON-able, recorded in the set
    tables: tuple[Mapping[str, Any], ...] = ()  # catalog extract: table, partition, tablet
    read_bytes: int = 0  # everything that was read of the store's files: headers, blocks as often as they were read


class Capture(Protocol):
    """One data backup in progress. Iterate ``blocks`` to its end, then read ``result``."""

    def blocks(
        self, known: Mapping[int, BlockIdentity], digests: Mapping[int, bytes] | None = None
    ) -> AsyncIterator[CapturedBlock | UnchangedBlock]:
        """Yield every block the image needs, some of them twice (the later one counts).

        Args:
            known: identities at each block index in the set an incremental builds on; empty for a full.
            digests: of the blocks in ``known``. With them a block is unchanged, too, when it was read and is the same.

        Raises:
            IntegrityError: a block's own checksum is wrong, persistently.
            SourceError: the engine swept in every window that was tried.
        """
        ...

    @property
    def result(self) -> CaptureResult: ...

    async def aclose(self) -> None:
        """Drop everything that was held for this capture. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class LogCursor:
    """Where the next log byte is, and the chain state that it must continue."""

    lsn: int
    log_id: int | None = None  # id of the last group before lsn; None = not known yet
    accum: int | None = None  # PALF accumulated checksum of that group; None = not known yet
    scn: int | None = None  # max SCN of that group


def _nothing_lent() -> None:
    pass


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Whole PALF groups of one log file, walked and verified.

    ``data`` holds the bytes [start_lsn, end_lsn), in memory of the source's until the receiver calls ``release``.
    ``block_header`` is the 48-byte LogBlockHeader of the log file when start_lsn is the first LSN of that file, else
    None. ``next`` continues the chain.
    """

    start_lsn: int
    end_lsn: int
    data: bytes | memoryview
    block_header: bytes | None
    groups: int
    first_log_id: int
    last_log_id: int
    min_scn: int
    max_scn: int
    table: array[int]  # PalfWalk.groups of this very data: what framing needs
    next: LogCursor
    release: Callable[[], None] = field(default=_nothing_lent, compare=False, repr=False)


class LogSource(Protocol):
    """The commit log of the PG, read from its files."""

    async def begin_lsn(self) -> int:
        """The oldest LSN that can still be read (a log file boundary), held files included."""
        ...

    async def end(self) -> tuple[int, int]:
        """(LSN, SCN) up to which the log is committed now."""
        ...

    async def hold(self, lsn: int) -> None:
        """From now on keep every log byte at or after ``lsn`` readable, however often the engine recycles."""
        ...

    async def release(self, lsn: int) -> None:
        """Log before ``lsn`` is no longer needed by this holder."""
        ...

    async def read(self, cursor: LogCursor, limit: int) -> LogChunk | None:
        """Whole groups from ``cursor.lsn`` on, at most about ``limit`` bytes but at least one group.

        Returns None when there is no committed group at the cursor yet.

        Raises:
            LogGapError: the log at the cursor was recycled before it was read.
            IntegrityError: a group in the middle of the log fails its checks, or the chain breaks.
        """
        ...

    async def aclose(self, *, keep_hold: bool) -> None:
        """Close; with ``keep_hold`` held files stay for the next run."""
        ...


class Store(Protocol):
    """A store to back up."""

    async def identity(self) -> StoreIdentity: ...

    async def capture(self, slabs: SlabSource) -> Capture: ...

    async def log(self, holder: str) -> LogSource:
        """The log, with a hold of its own named ``holder`` ("archive", "backup")."""
        ...

    async def aclose(self) -> None: ...
