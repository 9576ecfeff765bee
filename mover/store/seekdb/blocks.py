"""block_file: 2 MiB macroblocks at index * 2 MiB, read beside an engine that writes them.

The engine writes with O_DIRECT, so we read with O_DIRECT too: the page cache of the host stays the engine's other
users', and no stale cached page can be met. Filesystems that refuse it (tmpfs, some NFS) are read through the cache.
Everything here blocks; :class:`BlockReader` runs it in a few threads.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mover.errors import SourceError
from mover.kernel import MacroHeader, Read, macroblock_check, read_blocks, xxh3_128
from mover.kernel.macroblock import (
    COMMON_HEADER,
    COMMON_MAGIC,
    COMMON_VERSION,
    KIND_LINKED,
    KIND_NONE,
    KIND_SSTABLE_DATA,
    SSTABLE_HEADER,
    SSTABLE_MAGIC,
    sstable_compressed,
)
from mover.settled import settled
from mover.store.base import MACRO_BLOCK_SIZE, BlockIdentity

PAGE = 4096
FIRST_DATA_BLOCK = 2  # blocks 0 and 1 are the superblock copies
_SCAN_BATCH = 512
_THREADS = 4
_NO_DIRECT = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


class BlockHeader(NamedTuple):
    """The first page of a block, decoded but not verified against the payload."""

    block_index: int
    kind: int
    payload_size: int
    payload_checksum: int
    tablet_id: int
    logical_version: int
    data_seq: int
    data_checksum: int
    engine_compressed: bool | None = None

    @property
    def identity(self) -> BlockIdentity:
        """As :class:`BlockIdentity`; meaningful for kinds whose header states the payload."""
        return BlockIdentity(
            self.block_index,
            self.kind,
            COMMON_HEADER.size + self.payload_size,
            self.tablet_id,
            self.logical_version,
            self.data_seq,
            self.payload_checksum,
            self.data_checksum,
            self.engine_compressed,
        )

    @property
    def read_length(self) -> int:
        """How much of the block has to be read, whole pages: to the end of the payload where the header knows it."""
        if self.kind in (KIND_SSTABLE_DATA, KIND_LINKED) and 0 < self.payload_size <= MACRO_BLOCK_SIZE:
            return min(MACRO_BLOCK_SIZE, -(-(COMMON_HEADER.size + self.payload_size) // PAGE) * PAGE)
        return MACRO_BLOCK_SIZE


class BlockOrder(NamedTuple):
    """A block to read, and where to: at least ``length`` bytes, page aligned. ``length`` is in whole pages."""

    block_index: int
    buffer: memoryview
    length: int = MACRO_BLOCK_SIZE


class BlockImage(NamedTuple):
    """A block that was read whole: what it is, whether its checksum holds, and the digest of its used bytes if so."""

    identity: BlockIdentity
    ok: bool
    reason: str
    digest: bytes


def parse_header(index: int, page: memoryview | bytes) -> BlockHeader | None:
    """Decode the headers in the first page of block ``index``; None for a block that has none (never used)."""
    header_size, version, magic, kind, payload_size, checksum = COMMON_HEADER.unpack_from(page)
    if (
        magic != COMMON_MAGIC
        or version != COMMON_VERSION
        or header_size != COMMON_HEADER.size
        or not KIND_NONE < kind < 256
    ):
        return None
    if kind != KIND_SSTABLE_DATA:
        return BlockHeader(index, kind, payload_size, checksum, 0, 0, 0, 0)
    fields = SSTABLE_HEADER.unpack_from(page, COMMON_HEADER.size)
    if fields[2] != SSTABLE_MAGIC:
        return None
    compressed = sstable_compressed(page[COMMON_HEADER.size :], fields[0])
    return BlockHeader(index, kind, payload_size, checksum, fields[3], fields[4], fields[5], fields[-1], compressed)


def block_image(index: int, block: memoryview) -> BlockImage:
    """Verify a block that was read whole (or to the end of its payload) and take its identity from its own bytes."""
    header = macroblock_check(block)
    return _image(index, header, xxh3_128(block[: header.used_length]) if header.ok else b"")


def _image(index: int, header: MacroHeader, digest: bytes) -> BlockImage:
    kind, used, _, checksum, tablet, version, sequence, data_checksum, ok, reason, compressed = header
    identity = BlockIdentity(index, kind, used, tablet, version, sequence, checksum, data_checksum, compressed)
    return BlockImage(identity, ok, reason, digest)


class BlockFile:
    """The open block_file. Reads only; thread-safe.

    Raises:
        SourceError: it cannot be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.direct = True
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _cannot(path, error) from None
        try:
            self._direct_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:
            self._direct_fd = os.dup(self._fd)
            self.direct = False

    def size(self) -> int:
        """Bytes; whole blocks. Grows while the engine runs."""
        return os.fstat(self._fd).st_size // MACRO_BLOCK_SIZE * MACRO_BLOCK_SIZE

    def block_count(self) -> int:
        return self.size() // MACRO_BLOCK_SIZE

    def written(self) -> Iterator[range]:
        """Ranges of block indexes that may hold data: everything but what was never written since preallocation."""
        size, at, floor = self.size(), FIRST_DATA_BLOCK * MACRO_BLOCK_SIZE, FIRST_DATA_BLOCK
        while at < size:
            try:
                start = os.lseek(self._fd, at, os.SEEK_DATA)
                at = os.lseek(self._fd, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise _cannot(self.path, error) from None
            first = max(floor, start // MACRO_BLOCK_SIZE)
            floor = min(-(-at // MACRO_BLOCK_SIZE), size // MACRO_BLOCK_SIZE)
            if first < floor:
                yield range(first, floor)

    def read_into(self, index: int, buffer: memoryview, length: int = MACRO_BLOCK_SIZE) -> None:
        """Fill ``buffer[:length]`` from the start of block ``index``. Length in whole pages, buffer page aligned."""
        offset, done = index * MACRO_BLOCK_SIZE, 0
        while done < length:
            try:
                count = os.preadv(self._direct_fd, [buffer[done:length]], offset + done)
            except OSError as error:
                if self._refused(error.errno):
                    continue
                raise _cannot(self.path, error, index) from None
            if count == 0:
                raise self._short(index, offset + done)
            done += count

    def read_blocks(self, orders: Sequence[BlockOrder]) -> list[BlockImage]:
        """Read blocks and verify them, in one call of the kernel. What is behind a block's length is not touched."""
        reads = [Read(index * MACRO_BLOCK_SIZE, length, buffer) for index, buffer, length in orders]
        done = read_blocks(self._direct_fd, reads)
        if any(found.error and self._refused(found.error) for found in done):
            done = read_blocks(self._direct_fd, reads)
        images = []
        for (index, _, _), (error, filled, header, digest) in zip(orders, done, strict=True):
            if header is None:
                if error:
                    raise _cannot(self.path, OSError(error, os.strerror(error)), index)
                raise self._short(index, index * MACRO_BLOCK_SIZE + filled)
            images.append(_image(index, header, digest))
        return images

    def _refused(self, error: int | None) -> bool:
        """Was this O_DIRECT, which opened but is refused at the first read? Then reads go through the cache now."""
        if not self.direct or error not in _NO_DIRECT:
            return False
        os.dup2(self._fd, self._direct_fd, inheritable=False)
        self.direct = False
        return True

    def _short(self, index: int, offset: int) -> SourceError:
        return SourceError(f"{self.path} ends inside block {index}", path=str(self.path), offset=offset, block=index)

    def headers(self, indexes: Sequence[int]) -> list[BlockHeader]:
        """First pages of the given blocks, decoded; unused blocks are left out."""
        found = []
        page = memoryview(mmap.mmap(-1, PAGE))
        for index in indexes:
            self.read_into(index, page, PAGE)
            header = parse_header(index, page)
            if header is not None:
                found.append(header)
        return found

    def close(self) -> None:
        for fd in (self._fd, self._direct_fd):
            os.close(fd)


class BlockReader:
    """A :class:`BlockFile` for an event loop: a few threads of its own, so that nothing else waits behind its reads."""

    def __init__(self, path: Path, threads: int = _THREADS) -> None:
        self.file = BlockFile(path)
        self._closed = False
        self._read_bytes = 0
        self._counting = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mover-blocks")

    async def written(self) -> list[range]:
        """See :meth:`BlockFile.written`."""
        return await settled(self._pool, lambda: list(self.file.written()))

    async def headers(self, indexes: Iterable[int]) -> list[BlockHeader]:
        """Headers of the given blocks in ascending order of the input, unused blocks left out."""
        batches: list[list[int]] = [[]]
        for index in indexes:
            if len(batches[-1]) == _SCAN_BATCH:
                batches.append([])
            batches[-1].append(index)
        results = await asyncio.gather(*(settled(self._pool, self._headers, batch) for batch in batches))
        return [header for part in results for header in part]

    async def read(self, index: int, buffer: memoryview, length: int = MACRO_BLOCK_SIZE) -> BlockImage:
        """Read block ``index`` into a page-aligned buffer and verify it. What is behind ``length`` is not touched."""
        return (await self.read_blocks([BlockOrder(index, buffer, length)]))[0]

    async def read_blocks(self, orders: Sequence[BlockOrder]) -> list[BlockImage]:
        """See :meth:`BlockFile.read_blocks`. The thread has let go of the buffers when this returns or raises."""
        return await settled(self._pool, self._read, orders)

    def begin(self, orders: Sequence[BlockOrder]) -> asyncio.Future[list[BlockImage]]:
        """:meth:`read_blocks` under way. Whatever becomes of the caller, the buffers are the thread's until it is done;
        the future can not be cancelled."""
        return asyncio.get_running_loop().run_in_executor(self._pool, self._read, orders)

    def _read(self, orders: Sequence[BlockOrder]) -> list[BlockImage]:
        images = self.file.read_blocks(orders)
        with self._counting:
            self._read_bytes += sum(order.length for order in orders)
        return images

    def _headers(self, indexes: Sequence[int]) -> list[BlockHeader]:
        headers = self.file.headers(indexes)
        with self._counting:
            self._read_bytes += len(indexes) * PAGE
        return headers

    @property
    def read_bytes(self) -> int:
        """Bytes read so far, headers included."""
        return self._read_bytes

    async def aclose(self) -> None:
        """Wait for the threads and close the file. Idempotent."""
        pool = self._pool
        await asyncio.shield(asyncio.to_thread(pool.shutdown))
        if not self._closed:
            self._closed = True
            self.file.close()


def _cannot(path: Path, error: OSError, index: int | None = None) -> SourceError:
    where = "" if index is None else f" at block {index}"
    hint = "mover must run as the engine's user" if error.errno in (errno.EACCES, errno.EPERM) else None
    return SourceError(f"cannot read {path}{where}: {error.strerror}", hint=hint, path=str(path), block=index)
