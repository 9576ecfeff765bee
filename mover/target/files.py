"""``file://``: a directory, as a rule an NFS mount.

Small files are written in one job of a thread (open, write, fsync, rename, fsync of the directory) rather than through
aiofiles, which takes a thread hop for each of those calls and could be cancelled between them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TypeVar

from mover.errors import TargetError, TargetNotFound, UnreachableError
from mover.target.base import Buffer, Capabilities, ObjectInfo
from mover.target.file_writer import FileWriter
from mover.target.mount import Root
from mover.target.oserrors import target_error
from mover.target.paths import check_path, check_prefix
from mover.target.threads import Threads
from mover.target.tree import FileHandle, Tree, read_exactly, write_all

T = TypeVar("T")
_CACHED_HANDLES = 64
_KEEP_IN_CACHE = 1 << 20  # reads larger than this leave no pages behind


class FileTarget:
    """A directory as a destination. See :class:`mover.target.base.Target` for the contract.

    Args:
        path: the absolute path of the root directory.
        url: what to show for it.
        create: make the directory when it is missing. Readers pass False: a restore from a directory that is not there
            should say so.
        threads: how many calls may block at a time.
        timeout: seconds after which one call into the file system counts as hung (UnreachableError). A call is at most
            a few MiB of writing or one fsync.
    """

    capabilities = Capabilities(append=True, conditional_put=True, device_type="FILE")

    def __init__(self, path: str, url: str, *, create: bool = True, threads: int = 8, timeout: float = 300.0) -> None:
        self.path = path
        self.url = url
        self._create = create
        self._timeout = timeout
        self._threads = Threads(threads, "mover-file")
        self._tree: Tree | None = None
        self._appended: OrderedDict[str, FileHandle] = OrderedDict()  # least recently used first

    def __repr__(self) -> str:
        return f"<FileTarget {self.url}>"

    async def open(self) -> None:
        """Open the root directory and remember which mount it is. Raises UnreachableError."""
        root = await self._run(lambda: Root(self.path, create=self._create), "open", "")
        self._tree = Tree(root)

    async def check(self) -> None:
        tree = self._opened()
        await self._run(lambda: tree.root.check(full=True), "check", "")

    async def put(self, path: str, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        tree = self._opened()
        check_path(path)
        # A copy unless it is immutable: when this is cancelled the thread goes on, and the caller may reuse the buffer.
        content = data if isinstance(data, bytes) else bytes(data)
        info = await self._run(
            lambda: tree.fresh(lambda: tree.write_small(path, content, if_absent=if_absent)), "write", path
        )
        await self._forget(path)
        return info

    async def create(self, path: str) -> FileWriter:
        writer = FileWriter(self._opened(), self._run, check_path(path))
        try:
            await writer.open()
        except BaseException:
            await writer.abort()
            raise
        return writer

    async def append(self, path: str, offset: int, data: Buffer) -> None:
        """As the contract says. When it is cancelled the bytes behind ``offset`` are undefined until the next append.

        Appends to one file never overlap, also not with one that was cancelled and still runs.
        """
        tree = self._opened()
        check_path(path)
        if offset < 0:
            raise TargetError(f"can not append to {path!r} at offset {offset}", path=path, offset=offset)
        while True:
            handle = self._appended.get(path)
            if handle is None:
                fd = await self._run(
                    lambda: tree.fresh(lambda: tree.open_append(path, create=offset == 0)), "append to", path
                )
                handle = self._appended.setdefault(path, fresh := FileHandle(fd))
                if handle is not fresh:  # another append opened it meanwhile
                    fresh.close()
                await self._trim()
            self._appended.move_to_end(path)
            if await self._run(partial(_append, tree, handle, path, offset, data), "append to", path):
                return
            # The file behind the handle was deleted or replaced, or its handle made room for others.
            await self._forget(path, handle)

    async def get(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        tree = self._opened()
        check_path(path)
        return await self._run(lambda: tree.fresh(lambda: _read(tree, path, start, length)), "read", path)

    async def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        buffer[:] = await self.get(path, start, len(buffer))

    async def stream(
        self, path: str, start: int = 0, length: int | None = None, chunk: int = 4 << 20
    ) -> AsyncIterator[bytes]:
        tree = self._opened()
        check_path(path)
        handle = FileHandle(await self._run(lambda: tree.fresh(lambda: tree.open_read(path)), "read", path))
        try:
            size = await self._run(lambda: os.fstat(handle.fd).st_size, "read", path)
            end = _end(path, size, start, length)
            offset = start
            while offset < end:
                at, count = offset, min(chunk, end - offset)
                piece = await self._run(partial(_piece, handle, path, at, count), "read", path)
                offset += count
                yield piece
        finally:
            self._threads.submit(handle.close)

    async def stat(self, path: str) -> ObjectInfo | None:
        tree = self._opened()
        check_path(path)
        return await self._run(lambda: tree.fresh(lambda: tree.stat(path)), "look at", path)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        tree = self._opened()
        check_prefix(prefix)
        # Depth first, where a directory sorts as its name with '/': that is the order of whole paths, by their bytes.
        stack: list[ObjectInfo | str] = [prefix.rpartition("/")[0]]
        while stack:
            top = stack.pop()
            if isinstance(top, ObjectInfo):
                yield top
                continue
            files, below = await self._run(partial(tree.fresh, partial(tree.entries, top)), "list", top)
            found: list[tuple[bytes, ObjectInfo | str]] = [
                (os.fsencode(info.path), info) for info in files if info.path.startswith(prefix)
            ]
            for path in below:
                if f"{path}/".startswith(prefix) or prefix.startswith(f"{path}/"):
                    found.append((os.fsencode(f"{path}/"), path))
            found.sort(key=lambda item: item[0], reverse=True)
            stack.extend(item for _, item in found)

    async def delete(self, path: str) -> None:
        tree = self._opened()
        check_path(path)
        await self._run(lambda: tree.fresh(lambda: tree.delete(path)), "delete", path)
        await self._forget(path)

    async def aclose(self) -> None:
        """Close. Waits a moment for calls that still run, then leaves them to their threads. Idempotent."""
        tree, self._tree = self._tree, None
        if tree is None:
            self._threads.shutdown()
            return
        handles = [*self._appended.values()]
        self._appended.clear()

        def close() -> None:
            for handle in handles:
                handle.close()
            tree.root.close()

        try:
            await self._threads.run(close, timeout=5.0)
        except TimeoutError:  # hung: the descriptors go with the process
            pass
        finally:
            self._threads.shutdown()

    def _opened(self) -> Tree:
        if self._tree is None:
            raise TargetError(f"the destination {self.url} is not open")
        return self._tree

    async def _run(self, fn: Callable[[], T], doing: str, path: str) -> T:
        try:
            return await self._threads.run(fn, self._timeout)
        except TimeoutError as error:
            if error.errno:  # ETIMEDOUT from the file system is of the same class
                raise target_error(error, doing, path, self.path) from error
            place = f"{doing} {path!r} at {self.path}" if path else f"{doing} {self.path}"
            raise UnreachableError(
                f"can not {place}: the file system did not answer within {self._timeout:g} s",
                hint="a hung NFS server blocks every call; check the mount",
                path=path,
            ) from error
        except OSError as error:
            raise target_error(error, doing, path, self.path) from error

    async def _trim(self) -> None:
        while len(self._appended) > _CACHED_HANDLES:
            _, handle = self._appended.popitem(last=False)
            self._threads.submit(handle.close)

    async def _forget(self, path: str, handle: FileHandle | None = None) -> None:
        known = self._appended.get(path)
        if known is not None and (handle is None or known is handle):
            del self._appended[path]
            self._threads.submit(known.close)


def _append(tree: Tree, handle: FileHandle, path: str, offset: int, data: Buffer) -> bool:
    """False when the handle no longer is the file of this name."""
    tree.root.check()
    with handle.lock:
        if handle.fd < 0:
            return False
        found = os.fstat(handle.fd)
        if found.st_nlink == 0:
            return False
        if found.st_size < offset:
            message = f"{path!r} ends at {found.st_size}, before the offset {offset} that is appended at"
            hint = "published bytes are missing at the destination; validate it before going on"
            raise TargetError(message, hint=hint, path=path, offset=offset)
        if found.st_size > offset:
            os.ftruncate(handle.fd, offset)
        write_all(handle.fd, data, offset)
        os.fdatasync(handle.fd)
    return True


def _read(tree: Tree, path: str, start: int, length: int | None) -> bytes:
    try:
        fd = tree.open_read(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TargetNotFound(f"no file {path!r} at {tree.root.path}", path=path) from error
    try:
        end = _end(path, os.fstat(fd).st_size, start, length)
        data = read_exactly(fd, start, end - start)
        if len(data) != end - start:
            raise _short(path, start, end, start + len(data))
        if len(data) > _KEEP_IN_CACHE:
            os.posix_fadvise(fd, start, len(data), os.POSIX_FADV_DONTNEED)
        return data
    finally:
        os.close(fd)


def _piece(handle: FileHandle, path: str, offset: int, count: int) -> bytes:
    with handle.lock:
        data = read_exactly(handle.fd, offset, count)
        if len(data) != count:
            raise _short(path, offset, offset + count, offset + len(data))
        os.posix_fadvise(handle.fd, offset, count, os.POSIX_FADV_DONTNEED)
    return data


def _end(path: str, size: int, start: int, length: int | None) -> int:
    end = size if length is None else start + length
    if start < 0 or end < start or end > size:
        raise _short(path, start, max(start, end), size)
    return end


def _short(path: str, start: int, end: int, size: int) -> TargetError:
    message = f"{path!r} ends at {size}; bytes {start} to {end} were asked for"
    return TargetError(message, hint="the file was cut short at the destination", path=path, offset=start)
