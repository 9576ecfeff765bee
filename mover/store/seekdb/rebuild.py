"""Writing a bootable store: blocks into a sparse block_file, small files, and log laid into 64 MiB files.

Everything is written below ``store.partial`` and renamed to ``store`` when it is complete and durable, so that an
engine can never boot half a store. The engine makes every other directory (run, etc, log) itself.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TypeVar

from mover.errors import FormatError, IntegrityError, PreconditionError
from mover.kernel import palf_block_header_parse
from mover.kernel.palf import BLOCK_HEADER, PALF_FILE_BYTES, PALF_FILE_HEADER
from mover.store.base import MACRO_BLOCK_SIZE, StoreFile
from mover.store.seekdb.direct import DirectFile, StagedFile, staging, write_all
from mover.store.seekdb.paths import BLOCK_FILE, PALF_LOG, PALF_META, SLOG_SYS

T = TypeVar("T")
_PARTIAL = "store.partial"
_ALLOWED = ("sstable", "slog", "redo")
_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_PALF_FILE_SIZE = PALF_FILE_HEADER + PALF_FILE_BYTES


class StoreBuilder:
    """Builds one store. Calls block; :meth:`write_block` may be called from several threads at once.

    Args:
        target: base directory of the new store; must be empty or absent.
        block_file_size: bytes, whole macroblocks.

    Raises:
        PreconditionError: the target is not an empty directory. Nothing was touched.
        FormatError: ``block_file_size`` is not a whole number of macroblocks.
    """

    def __init__(self, target: Path | str, block_file_size: int) -> None:
        self.target = Path(target).absolute()
        if block_file_size % MACRO_BLOCK_SIZE or block_file_size < 2 * MACRO_BLOCK_SIZE:
            raise FormatError(f"block file size {block_file_size} is not a whole number of macroblocks")
        self.block_count = block_file_size // MACRO_BLOCK_SIZE
        self.check_target(self.target)
        self._root = self.target / _PARTIAL
        self._root_fd: int | None = None
        self._blocks: DirectFile | None = None
        self._log: StagedFile | None = None
        self._log_file = -1
        self._staging: memoryview | None = None
        self._next_lsn: int | None = None
        self.target.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        self._root_fd = self._claim()
        for directory in ("sstable", SLOG_SYS, "slog/server", PALF_LOG, PALF_META):
            self._make_directories(PurePosixPath(directory))
        self._blocks = self._create_direct(self._root / BLOCK_FILE)
        os.ftruncate(self._blocks.fd, block_file_size)

    @staticmethod
    def check_target(target: Path) -> None:
        """Raise PreconditionError unless ``target`` is absent, empty, or has only what a dead restore left."""
        try:
            busy = next((found for found in target.iterdir() if found.name != _PARTIAL), None)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise PreconditionError(f"restore target {target} is not a directory", path=str(target)) from None
        if busy is not None:
            raise PreconditionError(
                f"restore target {target} is not empty: it has {busy.name!r}",
                hint="name a new directory; a restore never writes over anything",
                path=str(target),
            )

    @property
    def next_lsn(self) -> int | None:
        """Where the next log bytes must begin; None before the first."""
        return self._next_lsn

    def write_block(self, index: int, data: memoryview | bytes) -> None:
        """Write the used bytes of block ``index``, and zeros up to a page if there are any; the rest stays a hole.

        Whole pages in page-aligned memory go to the disk past the page cache.

        Raises:
            FormatError: outside the block file, or larger than a block.
        """
        if not 0 <= index < self.block_count or len(data) > MACRO_BLOCK_SIZE:
            raise FormatError(
                f"block {index} of {len(data)} bytes does not fit a block file of {self.block_count} blocks",
                block=index,
            )
        self._open(self._blocks).write(data, index * MACRO_BLOCK_SIZE)

    def write_file(self, file: StoreFile) -> None:
        """Write a small file, or the superblock pages into the block file. Last write of a byte counts.

        Raises:
            FormatError: the path leads outside the store, or extents do not fit the size.
        """
        path = PurePosixPath(file.path)
        if (
            path.is_absolute()
            or ".." in path.parts
            or not path.parts
            or path.parts[0] not in _ALLOWED
            or "\0" in file.path
        ):
            raise FormatError(f"file {file.path!r} does not belong into a store", path=file.path)
        for offset, data in file.extents:
            if offset < 0 or offset + len(data) > file.size:
                raise FormatError(f"extent at {offset} does not fit {file.path} of {file.size} bytes", path=file.path)
        if str(path) == BLOCK_FILE:
            if file.size != self.block_count * MACRO_BLOCK_SIZE:
                raise FormatError(f"superblocks are of a block file of {file.size} bytes", path=file.path)
            for offset, data in file.extents:
                self._open(self._blocks).write(data, offset)
            return
        self._make_directories(path.parent)
        fd = self._create(self._root / path)
        try:
            os.ftruncate(fd, file.size)
            for offset, data in file.extents:
                write_all(fd, data, offset)
            os.fsync(fd)
        finally:
            os.close(fd)

    def append_log(self, lsn: int, block_header: bytes | None, groups: bytes | memoryview) -> None:
        """Append whole groups that begin at ``lsn`` and stay in one log file.

        Args:
            block_header: the 48-byte LogBlockHeader of the file; needed exactly when ``lsn`` is the file's first.

        Raises:
            FormatError: ``lsn`` does not continue what was appended, the header is missing or of another file, or
                the groups reach into the next file.
        """
        file_id, inside = divmod(lsn, PALF_FILE_BYTES)
        if self._next_lsn is not None and lsn != self._next_lsn:
            raise FormatError(f"log at lsn {lsn} does not continue lsn {self._next_lsn}", lsn=lsn)
        if inside + len(groups) > PALF_FILE_BYTES:
            raise FormatError(f"{len(groups)} bytes of log at lsn {lsn} reach into the next file", lsn=lsn)
        if inside == 0:
            if block_header is None or len(block_header) != BLOCK_HEADER.size:
                raise FormatError(f"the block header of log file {file_id} is missing", lsn=lsn)
            header = palf_block_header_parse(block_header)
            if header.block_id != file_id:
                raise FormatError(f"log file {file_id} has the block header of file {header.block_id}", lsn=lsn)
            self._close_log_file()
            if self._staging is None:
                self._staging = staging()
            self._log = StagedFile(self._create_direct(self._root / PALF_LOG / str(file_id)), self._staging)
            self._log_file = file_id
            self._log.append(block_header + bytes(PALF_FILE_HEADER - len(block_header)))
        elif self._log_file != file_id:
            raise FormatError(f"log begins at lsn {lsn}, inside file {file_id}", lsn=lsn)
        self._open(self._log).append(groups)
        self._next_lsn = lsn + len(groups)

    def finish(self) -> Path:
        """Make everything durable and give the store its name; the store directory.

        Raises:
            IntegrityError: no log was appended: such a store does not boot.
        """
        if self._next_lsn is None:
            raise IntegrityError(f"no log was restored into {self.target}", path=str(self.target))
        self._close_log_file()
        blocks, self._blocks = self._open(self._blocks), None
        try:
            blocks.sync()
        finally:
            blocks.close()
        for directory, _, _ in os.walk(self._root, topdown=False):
            _fsync_directory(Path(directory))
        store = self.target / "store"
        self._root.rename(store)
        _fsync_directory(self.target)
        _fsync_directory(self.target.parent)
        self.close()
        return store

    def close(self) -> None:
        """Close what is open, leaving ``store.partial`` behind when :meth:`finish` was not reached. Idempotent."""
        for file in (self._blocks, self._log):
            if file is not None:
                file.close()
        self._blocks = self._log = None
        fd, self._root_fd = self._root_fd, None
        if fd is not None:
            os.close(fd)

    def _claim(self) -> int:
        """Make ``store.partial`` ours, after removing what a restore that died left in it.

        The lock is on the directory itself, so it ends with the process and leaves no file in the store.
        """
        self._root.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for found in self._root.iterdir():
                if found.is_dir() and not found.is_symlink():
                    shutil.rmtree(found)
                else:
                    found.unlink()
        except BlockingIOError:
            os.close(fd)
            raise PreconditionError(
                f"another restore is writing into {self.target}", hint="wait for it, or name another directory"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _close_log_file(self) -> None:
        if self._log is not None:
            log, self._log = self._log, None
            # A hole reads as zeros, which is what the engine preallocates and where it takes the log to end.
            log.finish(_PALF_FILE_SIZE)

    def _make_directories(self, path: PurePosixPath) -> None:
        current = self._root
        current.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
        for part in path.parts:
            current = current / part
            current.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)

    def _create(self, path: Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
        except FileExistsError:
            raise FormatError(f"file {path.relative_to(self._root)} is restored twice", path=str(path)) from None

    def _create_direct(self, path: Path) -> DirectFile:
        return DirectFile(self._create(path), path)

    def _open(self, file: T | None) -> T:
        if file is None:
            raise PreconditionError(f"the store in {self.target} is finished or closed", path=str(self.target))
        return file


def _fsync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
