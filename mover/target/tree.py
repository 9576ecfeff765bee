"""The blocking half of ``file://``: files and directories below a root, durable and atomic.

Everything goes through the root's descriptor and follows no symbolic link in the last component. All calls block and
raise OSError as the kernel gives it; they belong in a thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from collections.abc import Callable
from typing import TypeVar

from mover.target.base import Buffer, ObjectInfo
from mover.target.handles import HandleClosed
from mover.target.mount import Root
from mover.target.paths import is_deleted, is_temporary, temporary_name

T = TypeVar("T")
_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # non-blocking: opening a FIFO must not hang
_RENAME_NOREPLACE = 1
_FALLOC_KEEP_SIZE = 1
_LINK_UNSUPPORTED = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_libc, "renameat2", None)
_fallocate = getattr(_libc, "fallocate64", None)


class Tree:
    """Files below ``root``."""

    def __init__(self, root: Root) -> None:
        self.root = root

    def fresh(self, fn: Callable[[], T]) -> T:
        """``fn()``, once more with a fresh root handle when an NFS server forgot the old one. ``fn`` is idempotent."""
        self.root.check()
        try:
            return fn()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            self.root.reopen()
            return fn()

    def open_new(self, path: str, flags: int = 0) -> int:
        """Create a file (mode 0600) that must not exist, with the directories that lead to it (mode 0700)."""
        return self._open_making_parents(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags)

    def open_append(self, path: str, *, create: bool) -> int:
        """Open a file for appending; with ``create`` it is made, and its name is durable on return."""
        try:
            return self.open_write(path)
        except FileNotFoundError:
            if not create:
                raise
        fd = self._open_making_parents(path, os.O_RDWR | os.O_CREAT)
        try:
            self.sync_parent(path)
        except OSError:
            os.close(fd)
            raise
        return fd

    def open_write(self, path: str) -> int:
        """Open an existing file for writing."""
        return os.open(path, os.O_RDWR | _FILE, dir_fd=self.root.fd)

    def open_read(self, path: str, flags: int = 0) -> int:
        """Open a regular file for reading. Raises FileNotFoundError for anything else: those are not objects."""
        fd = os.open(path, os.O_RDONLY | _FILE | flags, dir_fd=self.root.fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return fd

    def stat(self, path: str) -> ObjectInfo | None:
        try:
            found = os.stat(path, dir_fd=self.root.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return info_of(path, found) if stat.S_ISREG(found.st_mode) else None

    def leads_to(self, path: str, opened: os.stat_result) -> os.stat_result | None:
        """The file's status now, when ``path`` still is the name of the file that was opened.

        The number of its inode is not given away while it is open. How many links it has does not tell: on NFS a file
        that is deleted while it is open gets another name.
        """
        try:
            found = os.stat(path, dir_fd=self.root.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found if os.path.samestat(found, opened) else None

    def write_small(
        self, path: str, data: Buffer, unwanted: threading.Event, *, if_absent: bool, fence: Callable[[], None]
    ) -> ObjectInfo:
        """The whole of a small file: temporary name, fsync, close, publish, fsync of the directory.

        NFS may say only at the close that bytes were lost, so nothing is published before it. Raises HandleClosed, and
        publishes nothing, once it is ``unwanted``; the same with what ``fence`` raises. With ``if_absent`` nothing of
        this is there after any error.
        """
        temporary = temporary_name(path)
        fd = self.open_new(temporary)
        published = False
        try:
            try:
                write_all(fd, data, 0)
                os.fsync(fd)
                ours = os.fstat(fd)
            finally:
                os.close(fd)
            self.root.check()  # a mount lost while writing must not be published into
            if unwanted.is_set():
                raise HandleClosed
            fence()
            if if_absent:
                self.publish_new(ours, temporary, path)
                published = True
            else:
                self._replace(ours, temporary, path)
            self.sync_parent(path)
            return info_of(path, ours)
        except BaseException:
            self.discard(path if published else temporary)
            raise

    def _replace(self, ours: os.stat_result, temporary: str, path: str) -> None:
        """Rename; ``ours`` is the file's status. A reply that NFS lost is answered again, then with ENOENT."""
        root = self.root.fd
        try:
            os.rename(temporary, path, src_dir_fd=root, dst_dir_fd=root)
        except FileNotFoundError:
            if not self.leads_to(path, ours):
                raise

    def publish_new(self, ours: os.stat_result, temporary: str, path: str) -> None:
        """Give a file, whose status is ``ours``, its name in one step that replaces nothing. Raises FileExistsError.

        RENAME_NOREPLACE where the file system has it; NFS has not, there it is link + unlink. A reply to link that NFS
        lost is sent again and then says EEXIST although our own first one did it: the inode tells.
        """
        root = self.root.fd
        if _rename_noreplace(root, temporary, path):
            return
        try:
            os.link(temporary, path, src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False)
        except FileExistsError:
            if not self.leads_to(path, ours):
                raise
        except OSError as error:
            if error.errno not in _LINK_UNSUPPORTED:
                raise
            raise OSError(errno.EPERM, "neither RENAME_NOREPLACE nor hard links are supported") from error
        self.discard(temporary)  # published it is; should its other name stay, `mover sweep` removes that

    def discard(self, temporary: str) -> None:
        """Remove an unfinished file; what can not be removed now is left to `mover sweep`."""
        try:
            os.unlink(temporary, dir_fd=self.root.fd)
        except OSError:
            pass

    def delete(self, path: str) -> None:
        """Remove a file, and directories that this leaves empty: a directory is only the prefix of a file."""
        try:
            os.unlink(path, dir_fd=self.root.fd)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return
        parent = os.path.dirname(path)
        while parent:
            try:
                os.rmdir(parent, dir_fd=self.root.fd)
            except OSError:  # not empty, or somebody else's: it stays
                break
            parent = os.path.dirname(parent)
        while True:
            try:
                self._sync_dir(parent)
                return
            except FileNotFoundError:  # another delete removed it meanwhile: what it was in is what changed
                if not parent:
                    raise
                parent = os.path.dirname(parent)

    def entries(self, directory: str, *, unfinished: bool = False) -> tuple[list[ObjectInfo], list[str]]:
        """Files and sub-directories of a directory ('' is the root), unsorted. Nothing when there is no such one.

        Args:
            unfinished: only temporary files of unfinished writes, which are not files otherwise.
        """
        files: list[ObjectInfo] = []
        below: list[str] = []
        try:
            fd = os.open(directory or ".", _DIR | os.O_NOFOLLOW, dir_fd=self.root.fd)
        except (FileNotFoundError, NotADirectoryError):
            return files, below
        try:
            with os.scandir(fd) as found:
                for entry in found:
                    path = f"{directory}/{entry.name}" if directory else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        below.append(path)
                    elif entry.is_file(follow_symlinks=False) and _is_listed(entry.name, unfinished):
                        try:
                            files.append(info_of(path, entry.stat(follow_symlinks=False)))
                        except FileNotFoundError:  # deleted between the two calls
                            continue
        finally:
            os.close(fd)
        return files, below

    def sync_parent(self, path: str) -> None:
        """Make a name durable."""
        self._sync_dir(os.path.dirname(path))

    def _sync_dir(self, directory: str) -> None:
        fd = os.open(directory or ".", _DIR, dir_fd=self.root.fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _open_making_parents(self, path: str, flags: int) -> int:
        # delete() removes directories that become empty, so one that was just made may be gone again when the file is
        # opened. Once the file is in it, it stays.
        for attempt in range(5):
            try:
                return os.open(path, flags | _FILE, 0o600, dir_fd=self.root.fd)
            except FileNotFoundError:
                parent = os.path.dirname(path)
                if attempt == 4 or not parent:
                    raise
                self._make_dir(parent)
        raise AssertionError("unreachable")

    def _make_dir(self, directory: str) -> None:
        done = ""
        for name in directory.split("/"):
            upper, done = done, f"{done}/{name}" if done else name
            try:
                os.mkdir(done, 0o700, dir_fd=self.root.fd)
            except FileExistsError:
                continue
            except FileNotFoundError:
                return  # an upper one was pruned meanwhile: the caller tries again
            self._sync_dir(upper)


def write_all(fd: int, data: Buffer, offset: int) -> None:
    """pwrite until everything is written: a signal or a full disk may cut one call short."""
    view = memoryview(data).cast("B")
    while view:
        count = os.pwrite(fd, view, offset)
        if count == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view, offset = view[count:], offset + count


def read_exactly(fd: int, offset: int, length: int) -> bytes:
    """Up to ``length`` bytes: fewer only at the end of the file."""
    data = os.pread(fd, length, offset)
    if len(data) == length or not data:
        return data
    pieces = [data]
    missing = length - len(data)
    while missing:
        piece = os.pread(fd, missing, offset + length - missing)
        if not piece:
            break
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def info_of(path: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(path, found.st_size, found.st_mtime_ns // 1000)


def reserve(fd: int, offset: int, length: int) -> None:
    """Set space aside beyond the end of a file, whose size stays. What can not be reserved is not missed here.

    NFS can not, and a full disk says so again when the bytes themselves are written. ``ftruncate`` gives back the rest.
    """
    if _fallocate is not None:
        _fallocate(fd, _FALLOC_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length))


def _is_listed(name: str, unfinished: bool) -> bool:
    """Whether a file is an object, or with ``unfinished`` was to become one.

    Neither are files that were deleted while they were open and got another name from NFS or FUSE.
    """
    return is_temporary(name) == unfinished and not is_deleted(name)


def _rename_noreplace(root: int, old: str, new: str) -> bool:
    """Whether the rename was done; False when the kernel or the file system has no RENAME_NOREPLACE."""
    if _renameat2 is None:
        return False
    if _renameat2(root, os.fsencode(old), root, os.fsencode(new), _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code))  # OSError picks FileExistsError and its kin by the number
