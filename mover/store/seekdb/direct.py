"""Writing files of the restored store past the page cache, where memory, length and place allow it.

A large store would flush everything else out of the cache, and leave gigabytes in it for the last fsync.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

PAGE = 4096
# Less is quicker through the page cache, and leaves little there.
_DIRECT_FROM = 64 << 10
_NO_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP)
_STAGED = 4 << 20


class DirectFile:
    """A file that exists already, and is written at any place. :meth:`write` may run in several threads at once."""

    def __init__(self, fd: int, path: Path) -> None:
        """Takes ``fd`` over, which is open for writing; ``path`` leads to the same file."""
        self.fd = fd
        self._direct: int | None = None
        try:
            self._direct = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as exc:
            if exc.errno not in _NO_DIRECT:
                os.close(fd)
                raise

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """All of ``data``: past the page cache when it is whole pages in page-aligned memory, else through it."""
        if self._direct is not None and len(data) >= _DIRECT_FROM and len(data) % PAGE == 0:
            try:
                write_all(self._direct, data, offset)
            except OSError as exc:
                if exc.errno != errno.EINVAL:  # the memory is not aligned, or what was left after a short write
                    raise
            else:
                return
        write_all(self.fd, data, offset)

    def sync(self) -> None:
        """Make it durable."""
        os.fsync(self.fd)

    def close(self) -> None:
        """Idempotent."""
        fd, self.fd, direct, self._direct = self.fd, -1, self._direct, None
        for open_fd in (fd, direct):
            if open_fd is not None and open_fd >= 0:
                os.close(open_fd)


class StagedFile:
    """A file that is written front to back, through memory that makes large aligned writes of small appends."""

    def __init__(self, file: DirectFile, staging: memoryview) -> None:
        """``staging``: page aligned, whole pages; lent until :meth:`finish` or :meth:`close`."""
        self._file = file
        self._staging = staging
        self._at = 0  # of the staged bytes in the file
        self._staged = 0

    def append(self, data: bytes | memoryview) -> None:
        """What is written may be in memory only until :meth:`finish`."""
        view = memoryview(data)
        while view:
            count = min(len(view), len(self._staging) - self._staged)
            self._staging[self._staged : self._staged + count] = view[:count]
            self._staged += count
            view = view[count:]
            if self._staged == len(self._staging):
                self._flush()

    def finish(self, size: int) -> None:
        """Everything durable in a file of ``size`` bytes, whose rest is a hole; closes it."""
        rest = -self._staged % PAGE
        self._staging[self._staged : self._staged + rest] = bytes(rest)
        self._staged += rest
        try:
            self._flush()
            os.ftruncate(self._file.fd, size)
            self._file.sync()
        finally:
            self.close()

    def close(self) -> None:
        """Without writing what is staged. Idempotent."""
        self._file.close()

    def _flush(self) -> None:
        self._file.write(self._staging[: self._staged], self._at)
        self._at += self._staged
        self._staged = 0


def staging() -> memoryview:
    """Memory for a :class:`StagedFile`. Private: shared memory, mmap's default, gets no huge pages."""
    arena = mmap.mmap(-1, _STAGED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        arena.madvise(mmap.MADV_HUGEPAGE)
    except (OSError, AttributeError):  # they only save page faults
        pass
    return memoryview(arena)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """pwrite until everything is written: a signal or a full disk may cut one call short."""
    view, done = memoryview(data), 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], offset + done)
