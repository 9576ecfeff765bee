"""Reading large files of ``file://`` without pushing anything else out of the page cache.

Into aligned memory O_DIRECT reads, of which several should be under way: nothing reads ahead for them. Everything else
goes through the cache, with the kernel's read-ahead, and the pages are dropped behind it.
"""

from __future__ import annotations

import errno
import os

from mover.errors import TargetError, TargetNotFound
from mover.target.alignment import NO_DIRECT, direct_length
from mover.target.handles import FileHandle
from mover.target.tree import Tree, read_exactly

KEEP_IN_CACHE = 1 << 20  # what is read in pieces up to this size is an info file, and read again soon


class FileReader:
    """A file that is open for reading. Blocks, so it belongs in threads; several may use it at once."""

    def __init__(self, tree: Tree, path: str) -> None:
        """Open ``path``. Raises TargetNotFound."""
        self._path = path
        fd = open_file(tree, path)
        try:
            self._opened = os.fstat(fd)
            direct = self._open_direct(tree)
        except BaseException:
            os.close(fd)
            raise
        self._cached = FileHandle(fd)
        self._direct = None if direct is None else FileHandle(direct)
        self._aligned = direct is not None

    @property
    def size(self) -> int:
        """Bytes, when it was opened."""
        return self._opened.st_size

    def still(self, tree: Tree) -> os.stat_result | None:
        """The file's status; None when its name leads to another file by now, or to none."""
        return tree.leads_to(self._path, self._opened)

    def fill(self, start: int, view: memoryview) -> None:
        """Fill ``view`` from ``start`` on. Raises TargetError when the file ends earlier, HandleClosed."""
        done = self._fill_direct(start, view) if self._aligned else 0
        if done == len(view):
            return
        begin = start + done
        with self._cached.use() as fd:
            while done < len(view) and (count := os.preadv(fd, [view[done:]], start + done)):
                done += count
            os.posix_fadvise(fd, begin, start + done - begin, os.POSIX_FADV_DONTNEED)
        if done < len(view):
            raise short(self._path, start, start + len(view), start + done)

    def piece(self, start: int, length: int) -> bytes:
        """``length`` bytes through the cache. Raises like :meth:`fill`."""
        with self._cached.use() as fd:
            data = read_exactly(fd, start, length)
            os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)
        if len(data) != length:
            raise short(self._path, start, start + length, start + len(data))
        return data

    def close(self) -> None:
        """Close it when nobody reads any more. Idempotent."""
        self._cached.close()
        if self._direct is not None:
            self._direct.close()

    def _open_direct(self, tree: Tree) -> int | None:
        try:
            fd = tree.open_read(self._path, os.O_DIRECT)
        except FileNotFoundError:  # deleted between the two
            return None
        except OSError as error:
            if error.errno not in NO_DIRECT:
                raise
            return None
        if os.path.samestat(os.fstat(fd), self._opened):
            return fd
        os.close(fd)  # replaced between the two
        return None

    def _fill_direct(self, start: int, view: memoryview) -> int:
        """How many bytes O_DIRECT could read: up to a piece that is not aligned, or the end of the file."""
        whole = direct_length(view, start)
        if self._direct is None or not whole:
            return 0
        done = 0
        with self._direct.use() as fd:
            while done < whole:
                try:
                    count = os.preadv(fd, [view[done:whole]], start + done)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    self._aligned = False  # a device with sectors larger than our alignment
                    break
                done += count
                if count == 0 or not direct_length(view[done:whole], start + done):
                    break
        return done


def read_range(tree: Tree, path: str, start: int, length: int | None) -> bytes:
    """Bytes of a file that is opened for them alone, as the server has it now (NFS looks when a file is opened)."""
    fd = open_file(tree, path)
    try:
        end = end_of_range(path, os.fstat(fd).st_size, start, length)
        data = read_exactly(fd, start, end - start)
        if len(data) != end - start:
            raise short(path, start, end, start + len(data))
        if len(data) > KEEP_IN_CACHE:
            os.posix_fadvise(fd, start, len(data), os.POSIX_FADV_DONTNEED)
        return data
    finally:
        os.close(fd)


def open_file(tree: Tree, path: str) -> int:
    """A descriptor. Raises TargetNotFound."""
    try:
        return tree.open_read(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TargetNotFound(f"no file {path!r} at {tree.root.path}", path=path) from error


def end_of_range(path: str, size: int, start: int, length: int | None) -> int:
    """Where a range ends in a file of ``size`` bytes. Raises TargetError when the file ends earlier."""
    end = size if length is None else start + length
    if start < 0 or end < start or end > size:
        raise short(path, start, max(start, end), size)
    return end


def short(path: str, start: int, end: int, size: int) -> TargetError:
    """The error for a file that ends before ``end``."""
    message = f"{path!r} ends at {size}; bytes {start} to {end} were asked for"
    return TargetError(message, hint="the file was cut short at the destination", path=path, offset=start)
