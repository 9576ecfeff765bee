"""The small files of a seekdb that an image needs beside macroblocks and log: superblocks, slog, PALF meta.

What is left out, and why: ``sstable/meta.db`` (SQLite of the engine's own: ALTER SYSTEM parameters and merge history; a
restored store boots without it and takes its parameters from the command line, which must be able to differ), ``run/``,
``etc/`` and ``log/`` (made anew at every boot).
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

from mover.errors import FormatError, IntegrityError, SourceError
from mover.kernel import ob_crc64
from mover.store.base import MACRO_BLOCK_SIZE, StoreFile
from mover.store.seekdb.paths import BLOCK_FILE, PALF_META, SLOG_SYS, StorePaths, numbered_files

PAGE = 4096
SUPERBLOCK = struct.Struct("<iiiI")  # version, magic, body_size, body_crc
SUPERBLOCK_MAGIC = 1018
SUPERBLOCK_OFFSETS = (0, MACRO_BLOCK_SIZE)
SLOG_BATCH = struct.Struct(">HHHHQQ")  # magic, version, header size, reserved, body length, checksum of the body
SLOG_BATCH_MAGIC = 0xAABB
SLOG_ENTRY = struct.Struct(">HHHHiiQQQQ")  # magic, version, header size, reserved, command, length, seq, time, crcs
SLOG_FILLER = 0x10001  # the command of an entry that only fills a page
SLOG_SERVER = "slog/server"
PALF_META_ENTRY = struct.Struct(">HhiQQ")  # magic "LM", version, body length, checksum words
PALF_META_MAGIC = 0x4C4D
_ATTEMPTS = 20
_PIECE = 1 << 20
_TORN_SECONDS = 0.001


def check_superblock(page: bytes) -> None:
    """Verify one superblock copy.

    Raises:
        FormatError: not a superblock.
        IntegrityError: its checksum does not match.
    """
    if len(page) < SUPERBLOCK.size:
        raise FormatError(f"superblock needs {SUPERBLOCK.size} bytes, got {len(page)}")
    version, magic, size, checksum = SUPERBLOCK.unpack_from(page)
    if version != 1 or magic != SUPERBLOCK_MAGIC or not 0 < size <= len(page) - SUPERBLOCK.size:
        raise FormatError(f"not a superblock: version {version}, magic {magic}, body of {size} bytes")
    actual = ob_crc64(page[SUPERBLOCK.size : SUPERBLOCK.size + size]) & 0xFFFFFFFF
    if actual != checksum:
        raise IntegrityError(f"superblock checksum is {actual:#010x}, header says {checksum:#010x}")


def read_superblocks(paths: StorePaths) -> StoreFile:
    """Both superblock copies, verified. The engine rewrites one after the other, so a torn one is read again.

    Raises:
        IntegrityError: a copy stays invalid.
    """
    last: FormatError | IntegrityError | None = None
    for _ in range(_ATTEMPTS):
        fd = os.open(paths.block_file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pages = [os.pread(fd, PAGE, offset) for offset in SUPERBLOCK_OFFSETS]
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        try:
            for page in pages:
                check_superblock(page)
        except IntegrityError as error:
            last = error
            continue
        if pages[0] == pages[1]:
            break
    else:
        if last is not None:
            raise IntegrityError(
                f"superblock of {paths.block_file}: {last.message}", path=str(paths.block_file), offset=0
            )
        # Two valid copies of different age: the engine was stopped between the two writes and takes the newer.
    return StoreFile(
        BLOCK_FILE, size // MACRO_BLOCK_SIZE * MACRO_BLOCK_SIZE, tuple(zip(SUPERBLOCK_OFFSETS, pages, strict=True))
    )


class SlogReader:
    """slog/sys and slog/server, which grow by batches: each refresh reads just what was added.

    A flush ends on a page boundary: its rest is filled with a no-op batch, which the next flush overwrites in place. So
    reading goes on where that filler began, never behind it. A batch that is being written is left off; the engine
    itself forgets such a tail when it boots.
    """

    def __init__(self, paths: StorePaths) -> None:
        self._directories = {SLOG_SYS: paths.slog_sys, SLOG_SERVER: paths.data / SLOG_SERVER}
        self._content: dict[str, bytearray] = {}
        self._verified: dict[str, int] = {}  # end of the last valid batch
        self._resume: dict[str, int] = {}  # where the next refresh begins: before a trailing filler

    def refresh(self) -> int:
        """Read on to the present; bytes read.

        Raises:
            IntegrityError: a batch before the end of a file is not valid, however often it is read.
        """
        total = 0
        present = set()
        for prefix, directory in self._directories.items():
            ids = numbered_files(directory)
            for file_id in ids:
                name = f"{prefix}/{file_id}"
                try:
                    total += self._refresh_file(name, directory / str(file_id), last=file_id == ids[-1])
                    present.add(name)
                except FileNotFoundError:
                    continue  # an old file the engine just dropped after a checkpoint
        for name in self._content.keys() - present:
            del self._content[name], self._verified[name], self._resume[name]
        return total

    def files(self) -> list[StoreFile]:
        """What was read, cut behind the last whole batch, in whole pages."""
        found = []
        for name in sorted(self._content):
            end = self._verified[name]
            size = -(-end // PAGE) * PAGE
            content = bytes(self._content[name][:end]).ljust(size, b"\0")
            found.append(StoreFile(name, size, non_zero_pages(content)))
        return found

    def _refresh_file(self, name: str, path: Path, *, last: bool) -> int:
        content = self._content.setdefault(name, bytearray())
        start = self._resume.setdefault(name, 0)
        self._verified.setdefault(name, 0)
        total = 0
        for attempt in range(_ATTEMPTS):
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.seek(start)
                tail = file.readall()
            total += len(tail)
            del content[start:]
            content += tail
            end, resume = slog_valid_end(content, start)
            self._verified[name], self._resume[name] = end, resume
            if not any(content[end:]):
                return total
            # A flush is being written just now; it is whole in a moment.
            time.sleep(_TORN_SECONDS * (attempt + 1))
        # A whole flush with remains of a torn, older one behind it is what a crash leaves behind, and where the engine
        # goes on writing. Any other end is damage in the middle.
        if end % PAGE or not last:
            raise IntegrityError(f"{path} is not valid at offset {end}", path=str(path), offset=end)
        return total


def slog_valid_end(content: bytes | bytearray, start: int = 0) -> tuple[int, int]:
    """Offset behind the last valid batch, and the offset of that batch if it is only filler (else the same).

    Args:
        start: where a batch begins.
    """
    view = memoryview(content)
    at = resume = start
    while at + SLOG_BATCH.size <= len(view):
        magic, _, header_size, _, body_size, checksum = SLOG_BATCH.unpack_from(view, at)
        body = at + SLOG_BATCH.size
        if magic != SLOG_BATCH_MAGIC or header_size != SLOG_BATCH.size or body_size > len(view) - body:
            break
        if body_size < SLOG_ENTRY.size or ob_crc64(view[body : body + body_size]) != checksum:
            break
        filler = SLOG_ENTRY.unpack_from(view, body)[4] == SLOG_FILLER
        resume = at if filler else body + body_size
        at = body + body_size
    return at, resume


def read_palf_meta(paths: StorePaths) -> list[StoreFile]:
    """Every file of the PALF meta log as it is now, non-zero pages only.

    Raises:
        SourceError: there is none.
    """
    found = []
    for file_id in numbered_files(paths.palf_meta):
        try:
            with (paths.palf_meta / str(file_id)).open("rb", buffering=0) as file:
                size, extents = 0, []
                # Files are 64 MiB of which little is in use: never all of one in memory.
                while content := file.read(_PIECE):
                    extents += [(size + offset, data) for offset, data in non_zero_pages(content)]
                    size += len(content)
        except FileNotFoundError:
            continue  # the oldest is dropped when the newest begins
        found.append(StoreFile(f"{PALF_META}/{file_id}", size, tuple(extents)))
    if not found:
        raise SourceError(f"{paths.palf_meta} has no files", path=str(paths.palf_meta))
    return found


def non_zero_pages(content: bytes) -> tuple[tuple[int, bytes], ...]:
    """The 4 KiB pages of ``content`` that are not all zero, neighbours joined, as (offset, data)."""
    zero = bytes(PAGE)
    extents: list[tuple[int, bytes]] = []
    start: int | None = None
    for offset in range(0, len(content) + PAGE, PAGE):
        page = content[offset : offset + PAGE]
        used = bool(page) and page != zero[: len(page)]
        if used and start is None:
            start = offset
        elif not used and start is not None:
            extents.append((start, content[start:offset]))
            start = None
    return tuple(extents)
