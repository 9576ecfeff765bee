"""A large file on ``file://``: parts go out from where they are, a few at a time; durable, then published in one step.

O_DIRECT because a backup must neither push the database out of the page cache nor leave gigabytes of dirty pages to the
final fsync. What is not aligned, and everything where the file system has no O_DIRECT, goes through the cache, which is
flushed and dropped every few parts, with the same two effects.

What confirms the content here is that every pwrite returned its full length, that fsync of the file returned without
error (once: after a failed fsync the kernel may drop the pages, so it is never repeated), that fstat shows the size and
that the close reported nothing.
A read-back would be answered from the client's cache and prove nothing; validate reads the bytes against their digests.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections import deque
from functools import partial

from mover.errors import MoverError, TargetError, TargetExists
from mover.target.alignment import NO_DIRECT, direct_length
from mover.target.base import ObjectInfo, Part
from mover.target.calls import GRACE, Call, Calls
from mover.target.fence import require_fence
from mover.target.handles import FileHandle
from mover.target.paths import temporary_name
from mover.target.tree import Tree, info_of, reserve, write_all

UNDER_WAY = 3  # a local disk is busy with one; a server far away is not
_FLUSH_EVERY = 32 << 20  # through the cache: dirty bytes before they are forced out
_MOST_RESERVED = 64 << 20


class FileWriter:
    """See :class:`mover.target.base.Writer`. Memory: the parts that are under way, nothing else."""

    def __init__(self, tree: Tree, calls: Calls, path: str) -> None:
        self._tree = tree
        self._calls = calls
        self._path = path
        self._temporary = temporary_name(path)
        self._file: FileHandle | None = None  # opened before anything is written: its fsync sees every error
        self._cached: FileHandle | None = None  # the same file without O_DIRECT, once something is not aligned
        self._direct = False
        self._size = 0  # bytes taken over
        self._reserved = 0  # bytes that the file system set aside, or was asked to
        self._unflushed = 0
        self._opening: Call[None] | None = None
        self._under_way: deque[Call[None]] = deque()  # oldest first
        self._state = "new"
        self._published = False
        self._lock = threading.Lock()  # jobs may outlive a cancel: opening, publishing and discarding take turns

    async def open(self) -> None:
        """Create the temporary file. Raises TargetExists when the final name is taken already."""
        self._opening = self._calls.start(self._open, "create", self._path)
        await self._calls.result(self._opening, "create", self._path)
        self._state = "open"

    async def write(self, part: Part) -> None:
        view = part.data
        try:
            self._require_open("write")
            while self._under_way and (len(self._under_way) >= UNDER_WAY or self._under_way[0].ended.done()):
                await self._settle_oldest()
            room, offset = self._plan_room(len(view)), self._size
            call = self._calls.start(partial(self._put, view, offset, room), "write", self._path)
        except BaseException:
            # This part is missing in the file now: this writer can only be aborted.
            self._state = "failed" if self._state == "open" else self._state
            part.release()
            raise
        self._size += len(view)
        self._under_way.append(call)
        call.ended.add_done_callback(lambda _: part.release())

    async def commit(self) -> ObjectInfo:
        self._require_open("commit")
        self._state = "failed"
        while self._under_way:
            await self._settle_oldest()
        require_fence()
        info = await self._calls.run(self._finish, "publish", self._path)
        self._state = "committed"
        return info

    async def abort(self) -> None:
        """As the contract says; waits ``GRACE`` for a file system that hangs. What it leaves is for `mover sweep`.

        Parts whose write still goes on then are released when it ends.
        """
        if self._state in ("committed", "aborted"):
            return
        self._state = "aborted"
        # Opening too: a file that is made only after this has looked for it is removed by whoever makes it.
        jobs = [*self._under_way] if self._opening is None else [self._opening, *self._under_way]
        for call in jobs:
            call.give_up()
        ends = [call.ended for call in jobs]
        try:
            ends.append(self._calls.start(self._discard, "discard", self._path).ended)
        except MoverError:  # every thread hangs
            pass
        if ends:
            await asyncio.wait(ends, timeout=min(GRACE, self._calls.timeout))

    def _require_open(self, doing: str) -> None:
        if self._state != "open":
            raise TargetError(f"can not {doing} {self._path!r}: its writer is {self._state}", path=self._path)

    async def _settle_oldest(self) -> None:
        await self._calls.result(self._under_way[0], "write", self._path)
        self._under_way.popleft()

    def _plan_room(self, length: int) -> tuple[int, int] | None:
        """What to reserve before the next part is written, as offset and length: the more the larger the file is.

        It keeps large files in few extents. One part alone reserves nothing.
        """
        end = self._size + length
        if self._size == 0 or end <= self._reserved:
            return None
        begin = max(self._reserved, self._size)
        self._reserved = end + min(self._size, _MOST_RESERVED)
        return begin, self._reserved - begin

    # Below: in threads.

    def _open(self) -> None:
        self._tree.root.check()
        if self._tree.stat(self._path) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        try:
            fd, direct = self._tree.open_new(self._temporary, os.O_DIRECT), True
        except OSError as error:
            if error.errno not in NO_DIRECT:
                raise
            self._tree.discard(self._temporary)  # some file systems create the file before they refuse the flag
            fd, direct = self._tree.open_new(self._temporary), False
        with self._lock:
            if self._state == "new":
                self._file, self._direct = FileHandle(fd), direct
                return
        os.close(fd)  # aborted while this was opening
        self._tree.discard(self._temporary)

    def _put(self, view: memoryview, offset: int, room: tuple[int, int] | None) -> None:
        self._tree.root.check()
        assert self._file is not None
        whole = direct_length(view, offset) if self._direct else 0
        with self._file.use() as fd:
            if room is not None:
                reserve(fd, *room)
            if whole:
                try:
                    write_all(fd, view[:whole], offset)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    self._direct, whole = False, 0  # a device with sectors larger than our alignment
        if whole < len(view):
            self._put_cached(view[whole:], offset + whole)

    def _put_cached(self, view: memoryview, offset: int) -> None:
        with self._lock:
            if self._cached is None:
                self._cached = FileHandle(self._tree.open_write(self._temporary))
            self._unflushed += len(view)
            flush = self._unflushed >= _FLUSH_EVERY
            if flush:
                self._unflushed = 0
        with self._cached.use() as fd:
            write_all(fd, view, offset)
            if flush:
                os.fdatasync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _finish(self) -> ObjectInfo:
        assert self._file is not None
        with self._file.use() as fd:
            if self._reserved > self._size:
                os.ftruncate(fd, self._size)
            os.fsync(fd)
            ours = os.fstat(fd)
            if ours.st_size != self._size:
                found = f"{self._path!r} has {ours.st_size} bytes at the destination"
                message = f"{found} after {self._size} were written and synced"
                hint = "something else writes there, or the server loses data"
                raise TargetError(message, hint=hint, path=self._path)
            if self._cached is not None:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        self._close()  # NFS may say only now that bytes were lost: it has no name yet
        self._tree.root.check()
        with self._lock:
            if self._state == "aborted":  # commit was cancelled, this is only its job
                raise TargetError(f"the writer of {self._path!r} was aborted", path=self._path)
            try:
                self._tree.publish_new(ours, self._temporary, self._path)
            except FileExistsError as error:
                message = f"{self._path!r} is taken at the destination: nothing published is replaced"
                raise TargetExists(message, path=self._path) from error
            self._published = True
        self._tree.sync_parent(self._path)
        return info_of(self._path, ours)

    def _discard(self) -> None:
        with self._lock:
            # Closed first where no write is going on any more: NFS keeps a file that is open, under another name.
            self._close()
            # A commit that was cancelled or failed after the rename: no record names the file, its writer is aborted.
            self._tree.discard(self._path if self._published else self._temporary)

    def _close(self) -> None:
        for handle in (self._file, self._cached):
            if handle is not None:
                handle.close()
