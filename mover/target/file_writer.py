"""A large file on ``file://``: O_DIRECT through aligned buffers, durable, then published in one step.

O_DIRECT because a backup must neither push the database out of the page cache nor leave gigabytes of dirty pages to the
final fsync. Where the file system has none, pages are flushed and dropped every few buffers, with the same two effects.

What confirms the content here is that every pwrite returned its full length, that fsync of the file returned without
error (once: after a failed fsync the kernel may drop the pages, so it is never repeated) and that fstat shows the size.
A read-back would be answered from the client's cache and prove nothing; validate reads the bytes against their digests.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from mover.errors import TargetError, TargetExists
from mover.target.base import ObjectInfo, Part
from mover.target.paths import temporary_name
from mover.target.tree import FileHandle, Tree, info_of, write_all

T = TypeVar("T")
ALIGNMENT = 4096
BUFFER_SIZE = 4 << 20
_FLUSH_EVERY = 32 << 20  # without O_DIRECT: dirty bytes before they are forced out


class Runner(Protocol):
    """How a writer runs blocking work: in the target's threads, errors translated."""

    def __call__(self, fn: Callable[[], T], doing: str, path: str) -> Awaitable[T]: ...


class FileWriter:
    """See :class:`mover.target.base.Writer`. Memory: two buffers of 4 MiB."""

    def __init__(self, tree: Tree, run: Runner, path: str) -> None:
        self._tree = tree
        self._run = run
        self._path = path
        self._temporary = temporary_name(path)
        self._handle = FileHandle(-1)
        self._direct = False
        self._buffers = [mmap.mmap(-1, BUFFER_SIZE), mmap.mmap(-1, BUFFER_SIZE)]  # page aligned
        self._filled = 0  # bytes in buffers[0]
        self._written = 0  # bytes handed to the kernel or to the job that is under way
        self._unflushed = 0
        self._pending: asyncio.Future[None] | None = None  # the job that writes buffers[1]
        self._state = "new"
        self._published = False

    async def open(self) -> None:
        """Create the temporary file. Raises TargetExists when the final name is taken already."""
        await self._run(self._open, "create", self._path)
        self._state = "open"

    async def write(self, part: Part) -> None:
        try:
            await self._append(part.data)
        finally:
            part.release()

    async def _append(self, view: memoryview) -> None:
        self._require_open("write")
        try:
            while view:
                if self._filled == 0 and len(view) >= ALIGNMENT and _is_aligned(view):
                    whole = len(view) - len(view) % ALIGNMENT
                    await self._drain()
                    await self._write(view[:whole])
                    view = view[whole:]
                    continue
                count = min(len(view), BUFFER_SIZE - self._filled)
                self._buffers[0][self._filled : self._filled + count] = view[:count]
                self._filled += count
                view = view[count:]
                if self._filled == BUFFER_SIZE:
                    await self._swap()
        except BaseException:
            # Some of ``data`` may be in the file and some not: this writer can only be aborted now.
            self._state = "failed" if self._state == "open" else self._state
            raise

    async def commit(self) -> ObjectInfo:
        self._require_open("commit")
        self._state = "failed"
        await self._drain()
        tail = memoryview(self._buffers[0])[: self._filled]
        info = await self._run(lambda: self._finish(tail), "publish", self._path)
        self._state = "committed"
        return info

    async def abort(self) -> None:
        if self._state in ("committed", "aborted"):
            return
        self._state = "aborted"
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.wait([self._pending])  # ends at once: only its job goes on, in a thread
            if not self._pending.cancelled():
                self._pending.exception()
        try:
            # Waits for a job that still writes: it holds the handle's lock.
            await self._run(self._discard, "discard", self._path)
        except Exception:
            # Nobody answers; the temporary file stays for `mover sweep`, and abort has to succeed all the same.
            return

    def _require_open(self, doing: str) -> None:
        if self._state != "open":
            raise TargetError(f"can not {doing} {self._path!r}: its writer is {self._state}", path=self._path)

    async def _swap(self) -> None:
        """Hand the full buffer to a thread and go on with the other one, once that one is written."""
        await self._drain()
        self._buffers.reverse()
        self._filled = 0
        self._pending = asyncio.ensure_future(self._write(memoryview(self._buffers[1])))
        await asyncio.sleep(0)  # let the job be submitted now, not when this task waits the next time

    async def _drain(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            await pending

    async def _write(self, view: memoryview) -> None:
        offset = self._written
        self._written += len(view)
        await self._run(lambda: self._put(view, offset), "write", self._path)

    # Below: in threads.

    def _open(self) -> None:
        self._tree.root.check()
        if self._tree.stat(self._path) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        try:
            fd = self._tree.open_new(self._temporary, os.O_DIRECT)
            self._direct = True
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            self._tree.discard(self._temporary)  # some file systems create the file before they refuse the flag
            fd = self._tree.open_new(self._temporary)
        with self._handle.lock:
            if self._state == "new":
                self._handle.fd = fd
                return
        os.close(fd)  # aborted while this was opening
        self._tree.discard(self._temporary)

    def _put(self, view: memoryview, offset: int) -> None:
        self._tree.root.check()
        with self._handle.lock:
            fd = self._handle.fd
            if self._direct:
                try:
                    write_all(fd, view, offset)
                    return
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                self._stop_direct()  # a device with sectors larger than our alignment
            write_all(fd, view, offset)
            self._unflushed += len(view)
            if self._unflushed >= _FLUSH_EVERY:
                os.fdatasync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                self._unflushed = 0

    def _finish(self, tail: memoryview) -> ObjectInfo:
        expected = self._written + len(tail)
        if tail:
            self._tree.root.check()
            with self._handle.lock:
                # The tail's length is not a multiple of the alignment.
                self._stop_direct()
                write_all(self._handle.fd, tail, self._written)
        with self._handle.lock:
            fd = self._handle.fd
            os.fsync(fd)
            size = os.fstat(fd).st_size
            if size != expected:
                message = f"{self._path!r} has {size} bytes at the destination after {expected} were written and synced"
                raise TargetError(
                    message, hint="something else writes there, or the server loses data", path=self._path
                )
            self._tree.root.check()
            if self._state == "aborted":  # commit was cancelled; this is only its job, and abort waits for the lock
                raise TargetError(f"the writer of {self._path!r} was aborted", path=self._path)
            try:
                self._tree.publish_new(fd, self._temporary, self._path)
            except FileExistsError as error:
                message = f"{self._path!r} is taken at the destination: nothing published is replaced"
                raise TargetExists(message, path=self._path) from error
            self._published = True
            self._tree.sync_parent(self._path)
            if not self._direct:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            info = info_of(self._path, os.fstat(fd))
        self._handle.close()
        return info

    def _discard(self) -> None:
        self._handle.close()
        # A commit that was cancelled or failed after the rename: no record names the file, and its writer is aborted.
        self._tree.discard(self._path if self._published else self._temporary)

    def _stop_direct(self) -> None:
        if self._direct:
            flags = fcntl.fcntl(self._handle.fd, fcntl.F_GETFL)
            fcntl.fcntl(self._handle.fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
            self._direct = False


def _is_aligned(view: memoryview) -> bool:
    """Whether O_DIRECT may read from this memory. Only writable buffers tell their address; slabs are writable."""
    if view.readonly:
        return False
    return ctypes.addressof(ctypes.c_char.from_buffer(view)) % ALIGNMENT == 0
