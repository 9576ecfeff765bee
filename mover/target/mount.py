"""Which mounted file system a destination directory is, and whether it still is that one.

Every file below the root is reached through one descriptor that is held on the root directory. When NFS is unmounted
(lazily) or something is mounted over it, the path leads elsewhere, to the local disk as a rule, but the descriptor does
not: no byte can go to the wrong disk, and comparing the two tells what happened.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

from mover.errors import OB_MOUNT_FILE_NOT_VALID, MountError, UnreachableError

# What a path says when its mount is gone: not there, no longer known to its server, or its FUSE server has ended.
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN}
# statx(2), which os.stat does not use: stx_mask, stx_ino, stx_dev_major, stx_dev_minor and stx_mnt_id of its answer.
_STATX = struct.Struct("=I28xQ96xIIQ")
_STATX_INO, _STATX_MNT_ID = 0x100, 0x1000
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)
_statx = getattr(_libc, "statx", None)
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class MountIdentity:
    """The root directory of a destination, told apart from any other one on this machine."""

    device: int
    inode: int
    mount_id: int

    @classmethod
    def of(cls, fd: int) -> MountIdentity:
        """The identity of an open directory. Raises OSError."""
        return _identity(fd, "")

    @classmethod
    def at(cls, path: str) -> MountIdentity:
        """The identity of the directory that ``path`` leads to now, with one call of the kernel. Raises OSError."""
        return _identity(_AT_FDCWD, path)


class Root:
    """The root directory of a ``file://`` destination, held open. All calls block; they belong in a thread."""

    def __init__(self, path: str, *, create: bool) -> None:
        """Open ``path``; with ``create`` a missing directory is made (mode 0700). Raises UnreachableError."""
        self.path = path
        try:
            if create and not os.path.isdir(path):
                _make(path)
            self.fd = os.open(path, _OPEN_DIR)
        except OSError as error:
            hints = {
                errno.ENOENT: "mount it or create it",
                errno.ENOTDIR: "name a directory, not a file",
                errno.EACCES: "run as the user that owns it",
            }
            raise UnreachableError(
                f"can not open the destination directory {path}: {os.strerror(error.errno or 0).lower()}",
                hint=hints.get(error.errno or 0, "check that the file system is mounted and healthy"),
                path=path,
            ) from error
        self.identity = MountIdentity.of(self.fd)

    def check(self) -> None:
        """Prove that the path still leads to the directory that was opened. Raises MountError, or OSError as it is.

        The mount id is compared too, which sees the same file system mounted again.
        """
        try:
            found = MountIdentity.at(self.path)
        except OSError as error:
            raise self._unless_lost(error) from error
        if found != self.identity:
            raise self._lost("another file system or directory is in its place")

    def reopen(self) -> None:
        """After ESTALE: take a fresh handle of the same directory on the same mount. Raises MountError."""
        try:
            fd = os.open(self.path, _OPEN_DIR)
        except OSError as error:
            raise self._unless_lost(error) from error
        try:
            if MountIdentity.of(fd) != self.identity:
                raise self._lost("another file system or directory is in its place")
            # Over the old number in one step: other threads use it while this runs.
            os.dup2(fd, self.fd, inheritable=False)
        finally:
            os.close(fd)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _unless_lost(self, error: OSError) -> OSError | MountError:
        return self._lost(os.strerror(error.errno or 0).lower()) if error.errno in _GONE else error

    def _lost(self, reason: str) -> MountError:
        return MountError(
            f"the destination directory {self.path} is not the one that was opened: {reason}",
            hint="mount the backup file system again and repeat the command; nothing was written to another disk",
            code=OB_MOUNT_FILE_NOT_VALID,
            path=self.path,
        )


def _make(path: str) -> None:
    """Make a directory and its parents durably: a directory that a power cut takes away takes its files along."""
    parent = os.path.dirname(path)
    if parent != path and not os.path.isdir(parent):
        _make(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    fd = os.open(parent, _OPEN_DIR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _identity(directory: int, path: str) -> MountIdentity:
    """The mount id is 0 where the kernel (before 5.8) or the C library does not tell it."""
    if _statx is not None:
        buffer = ctypes.create_string_buffer(256)
        if _statx(directory, os.fsencode(path), _AT_EMPTY_PATH, _STATX_INO | _STATX_MNT_ID, buffer) == 0:
            given, inode, major, minor, mount_id = _STATX.unpack_from(buffer)
            return MountIdentity(os.makedev(major, minor), inode, mount_id if given & _STATX_MNT_ID else 0)
        if (code := ctypes.get_errno()) != errno.ENOSYS:
            raise OSError(code, os.strerror(code))
    status = os.stat(path or directory)
    return MountIdentity(status.st_dev, status.st_ino, 0)
