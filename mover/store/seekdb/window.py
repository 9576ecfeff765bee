"""One pass over what changed: run outside the window to catch up, and inside it to make the image consistent.

What makes it sound, step by step (each found or checked on a live engine):

* A new sstable always means a new tablet meta, so a tablet whose pointer is the same before and after has the same
  blocks. Its sstable blocks (kind 1) are immutable and still in use; they need no second look, not even at the header.
* The engine persists a tablet in the slog before it swaps the pointer. Pointers are therefore read on both sides of the
  slog copy until they agree ("the bracket"): then the block lists read inside it are those of the slog copy. Tablets
  that never hold still, and those that change right after, get every block on disk that names them instead.
* Everything the slog copy refers to was written before it, and while no sweep runs nothing is freed, so blocks read
  after the copy hold at least what it refers to. Kinds 2, 7 and 8 are appended in place, so their bytes are compared.

The work is: the headers of blocks that are not known to be in use unchanged (free, shared, superseded), the bytes of
the shared kinds, and the bytes of what is new. It does not touch the sstable blocks of tablets that did not change.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from mover.errors import IntegrityError, SourceError
from mover.kernel.macroblock import KIND_NONE, KIND_SSTABLE_DATA
from mover.store.base import MACRO_BLOCK_SIZE, BlockIdentity, StoreFile, UnchangedBlock
from mover.store.seekdb.blocks import PAGE, BlockHeader, BlockImage, BlockOrder, BlockReader
from mover.store.seekdb.catalog import Catalog, MacroRow
from mover.store.seekdb.files import SlogReader, read_superblocks
from mover.store.seekdb.image import ImageMap, content_mark, identity_mark
from mover.store.seekdb.paths import StorePaths
from mover.store.seekdb.readahead import read_settled
from mover.store.seekdb.spool import Spool

_BRACKETS = 5
# Two buffers of two blocks: 8 MiB beside the pool, which may have nothing to lend.
_JOBS = 2
_BLOCKS_PER_JOB = 2


class Inconsistent(SourceError):
    """Catalog and disk disagree: the pass must be repeated."""


@dataclass(slots=True)
class PassStats:
    """What one pass cost."""

    headers_scanned: int = 0
    blocks_read: int = 0
    bytes_read: int = 0
    blocks_changed: int = 0
    tablets_changed: int = 0
    tablets_unstable: int = 0
    brackets: int = 0


@dataclass(slots=True)
class Pass:
    """What one pass found: everything the image consists of, if no sweep ran meanwhile."""

    live: set[int]
    superblocks: StoreFile
    slog: list[StoreFile]
    damaged: list[int] = field(default_factory=list)
    stats: PassStats = field(default_factory=PassStats)


class ChangeTracker:
    """The state that passes build on: which content is captured, and which tablets and blocks that is.

    Args:
        known, digests: see :meth:`mover.store.base.Capture.blocks`.
    """

    def __init__(
        self,
        paths: StorePaths,
        catalog: Catalog,
        reader: BlockReader,
        known: Mapping[int, BlockIdentity],
        digests: Mapping[int, bytes],
    ) -> None:
        self._paths = paths
        self._catalog = catalog
        self._reader = reader
        self._known = known
        self._digests = digests
        self._slog = SlogReader(paths)
        self.slog_bytes = 0
        """Bytes of the slog that were read."""
        self.image = ImageMap()
        # A tablet is missing from `pointers` when its blocks are not known for sure: the next pass asks again.
        self.pointers: dict[int, str] = {}
        self.listed: dict[int, frozenset[int]] = {}
        # Blocks that the catalog lists but that could not be read yet.
        self.unread: set[int] = set()
        # Blocks that a pass proved to be those in `known`; the caller takes them.
        self.proven: list[UnchangedBlock] = []

    async def begin(self) -> list[BlockHeader]:
        """First look: pointers, block lists, headers. Returns the headers of the blocks the bulk copy should read.

        Every pass reads the shared kinds again, whatever the bulk copy did. With ``digests``, which tell most of them
        to be those of the set before, they are left to the passes.
        """
        self.pointers = await self._catalog.tablet_pointers()
        self._list(await self._catalog.macro_blocks())
        self.slog_bytes += await asyncio.to_thread(self._slog.refresh)
        in_use = set().union(*self.listed.values())
        wanted = []
        for header in await self._reader.headers(i for part in await self._reader.written() for i in part):
            self.image.saw(header)
            if header.block_index in in_use if header.kind == KIND_SSTABLE_DATA else not self._digests:
                wanted.append(header)
        self.unread = {header.block_index for header in wanted if header.kind == KIND_SSTABLE_DATA}
        return wanted

    def unchanged(self, header: BlockHeader) -> UnchangedBlock | None:
        """The proof that a block is the one in ``known``, when it is."""
        if header.kind == KIND_SSTABLE_DATA and self._known.get(header.block_index) == header.identity:
            self.image.proven(header.identity)
            self.unread.discard(header.block_index)
            return UnchangedBlock(header.identity)
        return None

    def captured(self, image: BlockImage) -> None:
        """A verified block goes into the capture."""
        self.image.yielded(image)
        self.unread.discard(image.identity.block_index)

    async def run(self, spool: Spool) -> Pass:
        """Find what changed since the last pass and put it into ``spool``.

        Raises:
            Inconsistent: catalog and disk contradict each other, which a sweep in between explains.
            IntegrityError: a block in use fails its checksum persistently.
        """
        stats = PassStats()
        rows, before, after, superblocks, slog = await self._bracket(stats)
        self.slog_bytes += stats.bytes_read  # nothing else was read so far
        unstable = _differing(before, after)
        touched = _differing(self.pointers, before) | unstable
        settled = {tablet: self.listed[tablet] for tablet in before if tablet not in touched and tablet in self.listed}

        if self.unread:
            self.unread &= set().union(*settled.values())
        headers = await self._rescan(settled, stats)
        needed, versions = _needed(rows, before, unstable)
        self._check_versions(headers, versions)
        found = Pass(set(), superblocks, slog, stats=stats)
        shared = [header for header in headers.values() if header.kind != KIND_SSTABLE_DATA]
        by_tablet: dict[int, set[int]] = {}
        for header in headers.values():
            if header.kind == KIND_SSTABLE_DATA:
                by_tablet.setdefault(header.tablet_id, set()).add(header.block_index)

        for tablet in unstable:
            needed[tablet] = needed.get(tablet, set()) | by_tablet.get(tablet, set())
        wanted = {i for blocks in needed.values() for i in blocks if self._is_data(headers, i)} | self.unread
        certain = {i for tablet, blocks in needed.items() if tablet not in unstable for i in blocks} | self.unread
        await self._read_all([*shared, *(headers[i] for i in sorted(wanted) if i in headers)], certain, spool, found)

        # The pointer of a tablet whose slog entry is in the copy may be swapped only now.
        late = _differing(after, await self._catalog.tablet_pointers())
        if late:
            extra = {i for tablet in late for i in by_tablet.get(tablet, ()) if i not in wanted}
            await self._read_all([headers[i] for i in sorted(extra)], set(), spool, found)
            for tablet in late:
                needed[tablet] = needed.get(tablet, set()) | by_tablet.get(tablet, set()) | settled.get(tablet, set())
        unstable |= late

        stats.tablets_changed, stats.tablets_unstable = len(touched | late), len(unstable)
        self._settle(settled, needed, before, unstable)
        found.live = self._live(headers)
        return found

    async def _bracket(
        self, stats: PassStats
    ) -> tuple[dict[int, list[MacroRow]], dict[int, str], dict[int, str], StoreFile, list[StoreFile]]:
        rows: dict[int, list[MacroRow]] = {}
        asked: dict[int, str] = {}
        before = await self._catalog.tablet_pointers()
        while True:
            stats.brackets += 1
            stale = {
                tablet
                for tablet, address in before.items()
                if self.pointers.get(tablet) != address and asked.get(tablet) != address
            }
            if stale:
                for tablet in stale:
                    rows[tablet], asked[tablet] = [], before[tablet]
                for row in await self._catalog.macro_blocks(stale):
                    rows[row.tablet_id].append(row)
            superblocks = await asyncio.to_thread(read_superblocks, self._paths)
            stats.bytes_read += await asyncio.to_thread(self._slog.refresh)
            if await asyncio.to_thread(read_superblocks, self._paths) != superblocks:
                # A server checkpoint in the middle: superblock and slog must be of one age.
                superblocks = await asyncio.to_thread(read_superblocks, self._paths)
                stats.bytes_read += await asyncio.to_thread(self._slog.refresh)
            after = await self._catalog.tablet_pointers()
            if after == before or stats.brackets == _BRACKETS:
                return rows, before, after, superblocks, await asyncio.to_thread(self._slog.files)
            before = after

    async def _rescan(self, settled: Mapping[int, frozenset[int]], stats: PassStats) -> dict[int, BlockHeader]:
        skip = bytearray(self._reader.file.block_count())
        for blocks in settled.values():
            for index in blocks:
                if self.image.kind(index) == KIND_SSTABLE_DATA and index not in self.unread and index < len(skip):
                    skip[index] = 1
        candidates = [i for part in await self._reader.written() for i in part if i >= len(skip) or not skip[i]]
        headers = {header.block_index: header for header in await self._reader.headers(candidates)}
        stats.headers_scanned = len(candidates)
        stats.bytes_read += len(candidates) * PAGE
        for index in candidates:
            if index not in headers:
                self.image.forget(index)
        for header in headers.values():
            self.image.saw(header)
        return headers

    def _check_versions(self, headers: Mapping[int, BlockHeader], versions: Mapping[int, MacroRow]) -> None:
        for index, row in versions.items():
            header = headers.get(index)
            if header is None:
                # Not looked at again, because a settled tablet uses it too; or not there at all.
                agrees = self.image.kind(index) != KIND_NONE
            else:
                agrees = header.kind != KIND_SSTABLE_DATA or (header.logical_version, header.data_seq) == (
                    row.logical_version,
                    row.data_seq,
                )
            if not agrees:
                raise Inconsistent(
                    f"block {index} of tablet {row.tablet_id} is not on disk as the catalog lists it",
                    tablet_id=row.tablet_id,
                    block=index,
                )

    def _is_data(self, headers: Mapping[int, BlockHeader], index: int) -> bool:
        return index in headers and headers[index].kind == KIND_SSTABLE_DATA

    async def _read_all(self, headers: Iterable[BlockHeader], certain: set[int], spool: Spool, found: Pass) -> None:
        """Read what is not captured yet, a few at a time, into memory of our own: the slab pool may be waiting."""
        queue = iter(headers)

        async def read_some() -> None:
            buffers = [memoryview(mmap.mmap(-1, MACRO_BLOCK_SIZE)) for _ in range(_BLOCKS_PER_JOB)]
            while batch := list(islice(queue, _BLOCKS_PER_JOB)):
                wanted = [header for header in batch if not self._is_known(header, found)]
                orders = [
                    BlockOrder(header.block_index, buffer, header.read_length)
                    for header, buffer in zip(wanted, buffers, strict=False)
                ]
                first_looks = await self._reader.read_blocks(orders)
                for header, order, first_look in zip(wanted, orders, first_looks, strict=True):
                    image = await read_settled(self._reader, header, order.buffer, first_look)
                    await self._take(header, image, order.buffer, header.block_index in certain, spool, found)

        tasks = [asyncio.create_task(read_some()) for _ in range(_JOBS)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _is_known(self, header: BlockHeader, found: Pass) -> bool:
        """Does its header alone prove an sstable block to be captured, or to be the one in ``known``?"""
        if header.kind != KIND_SSTABLE_DATA:
            return False
        if self.image.has(header.block_index, identity_mark(header.identity)):
            self.unread.discard(header.block_index)
            return True
        proven = self.unchanged(header)
        if proven is None:
            return False
        self.proven.append(proven)
        found.stats.blocks_changed += 1
        return True

    async def _take(
        self, header: BlockHeader, image: BlockImage, buffer: memoryview, certain: bool, spool: Spool, found: Pass
    ) -> None:
        index = header.block_index
        found.stats.blocks_read += 1
        found.stats.bytes_read += header.read_length
        if not image.ok or image.identity.kind == KIND_NONE:
            if certain:
                raise IntegrityError(
                    f"macroblock {index} (tablet {header.tablet_id}) fails its checksum: {image.reason or 'empty'}",
                    hint="the store is damaged at the source; see __all_virtual_bad_block_table",
                    path=str(self._reader.file.path),
                    offset=index * MACRO_BLOCK_SIZE,
                    block=index,
                )
            # Not known to be in use: torn by an old crash, or being written for the first time.
            found.damaged.append(index)
            self.image.forget(index)
            return
        if self.image.has(index, content_mark(image)):
            return
        found.stats.blocks_changed += 1
        if self._digests.get(index) == image.digest:
            self.captured(image)
            self.proven.append(UnchangedBlock(image.identity))
            return
        await asyncio.to_thread(spool.add, image.identity, image.digest, buffer[: image.identity.used_length])
        self.captured(image)

    def _settle(
        self,
        settled: dict[int, frozenset[int]],
        needed: Mapping[int, set[int]],
        before: Mapping[int, str],
        unstable: set[int],
    ) -> None:
        lists = {**settled, **{tablet: frozenset(blocks) for tablet, blocks in needed.items()}}
        for tablet in unstable & lists.keys():
            # Among everything that names the tablet may be blocks that are only being written.
            lists[tablet] = frozenset(i for i in lists[tablet] if self.image.captured(i))
        self.listed = lists
        self.pointers = {tablet: address for tablet, address in before.items() if tablet not in unstable}

    def _live(self, headers: Mapping[int, BlockHeader]) -> set[int]:
        captured = set(self.image.yielded_blocks())
        # Shared kinds that could not be read are in `damaged`; nobody knows whether they are in use.
        live = {h.block_index for h in headers.values() if h.kind != KIND_SSTABLE_DATA} & captured
        for blocks in self.listed.values():
            live |= blocks
        missing = live - captured
        if missing:
            raise Inconsistent(f"block {min(missing)} and {len(missing) - 1} more are in use but were not captured")
        return live

    def _list(self, rows: Iterable[MacroRow]) -> None:
        lists: dict[int, set[int]] = {}
        for row in rows:
            lists.setdefault(row.tablet_id, set()).add(row.block_index)
        self.listed = {tablet: frozenset(blocks) for tablet, blocks in lists.items()}


def _differing(one: Mapping[int, str], other: Mapping[int, str]) -> set[int]:
    """Tablets that are new, gone or changed between two pointer lists."""
    return {tablet for tablet, address in one.items() if other.get(tablet) != address} | (other.keys() - one.keys())


def _needed(
    rows: Mapping[int, list[MacroRow]], before: Mapping[int, str], unstable: set[int]
) -> tuple[dict[int, set[int]], dict[int, MacroRow]]:
    """Blocks per changed tablet, and for tablets that held still what each block must be."""
    needed = {tablet: {row.block_index for row in listed} for tablet, listed in rows.items() if tablet in before}
    versions = {row.block_index: row for tablet in needed.keys() - unstable for row in rows[tablet]}
    return needed, versions
