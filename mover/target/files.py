"""``file://``: a directory, as a rule an NFS mount.

Small files are written in one job of a thread (open, write, fsync, rename, fsync of the directory) rather than through
aiofiles, which takes a thread hop for each of those calls and could be cancelled between them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TypeVar

from mover.errors import TargetError
from mover.target.base import Buffer, Capabilities, Leftover, ObjectInfo
from mover.target.calls import Call, Calls
from mover.target.fence import current_fence, require_fence
from mover.target.file_append import append_to
from mover.target.file_reader import FileReader, end_of_range, read_range
from mover.target.file_writer import UNDER_WAY, FileWriter
from mover.target.handles import FileHandle, HandleClosed, Recent
from mover.target.mount import Root
from mover.target.paths import check_path, check_prefix, finished_name, is_temporary
from mover.target.threads import Threads
from mover.target.tree import Tree

T = TypeVar("T")
CALL_SECONDS = 300.0  # a call is some MiB or one fsync, and a server that fails over takes a minute or two
_KEPT_OPEN = 64  # files that are read in ranges, and as many that are appended to


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

    def __init__(
        self, path: str, url: str, *, create: bool = True, threads: int = 8, timeout: float = CALL_SECONDS
    ) -> None:
        self.path = path
        self.url = url
        self._create = create
        self._threads = Threads(threads, "mover-file")
        self._calls = Calls(self._threads, timeout, path)
        self._tree: Tree | None = None
        self._appended: Recent[FileHandle] = Recent(_KEPT_OPEN, self._close_soon)
        self._read: Recent[FileReader] = Recent(_KEPT_OPEN, self._close_soon)

    def __repr__(self) -> str:
        return f"<FileTarget {self.url}>"

    async def open(self) -> None:
        """Open the root directory and remember which mount it is. Raises UnreachableError."""
        root = await self._calls.run(lambda: Root(self.path, create=self._create), "open", "")
        self._tree = Tree(root)

    @property
    def parts_under_way(self) -> int:
        return UNDER_WAY

    async def check(self) -> None:
        tree = self._opened()
        await self._calls.run(tree.root.check, "check", "")

    async def put(
        self,
        path: str,
        data: Buffer,
        *,
        if_absent: bool = False,
        write_once: bool = False,  # noqa: ARG002
    ) -> ObjectInfo:
        tree = self._opened()
        check_path(path)
        # A copy unless it is immutable: when this is cancelled the thread goes on, and the caller may reuse the buffer.
        content = data if isinstance(data, bytes) else bytes(data)
        self._forget(path)
        unwanted = threading.Event()
        write = partial(tree.write_small, path, content, unwanted, if_absent=if_absent, fence=current_fence())
        try:
            return await self._calls.run(lambda: tree.fresh(write), "write", path)
        except BaseException:
            unwanted.set()  # whoever was cancelled clears away what it wrote: nothing may appear behind that
            raise

    async def create(self, path: str, *, write_once: bool = False) -> FileWriter:  # noqa: ARG002
        writer = FileWriter(self._opened(), self._calls, check_path(path))
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
        require_fence()
        if offset < 0:
            raise TargetError(f"can not append to {path!r} at offset {offset}", path=path, offset=offset)
        while True:
            handle = self._appended.get(path)
            fresh = handle is None
            if handle is None:
                fd = await self._calls.run(
                    lambda: tree.fresh(lambda: tree.open_append(path, create=offset == 0)), "append to", path
                )
                handle = self._appended.keep(path, FileHandle(fd))
            if await self._calls.run(partial(append_to, tree, handle, path, offset, data, fresh), "append to", path):
                return
            # The file behind the handle was deleted or replaced, or its handle made room for others.
            self._appended.forget(path, handle)

    async def get(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        tree = self._opened()
        check_path(path)
        return await self._calls.run(lambda: tree.fresh(lambda: read_range(tree, path, start, length)), "read", path)

    async def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        """As the contract says. Several at a time keep a disk busy: nothing reads ahead for O_DIRECT."""
        tree = self._opened()
        check_path(path)
        while True:
            reader = self._read.get(path)
            fresh = reader is None
            if reader is None:
                opened = await self._calls.run(lambda: tree.fresh(lambda: FileReader(tree, path)), "read", path)
                reader = self._read.keep(path, opened)
            if await self._calls.settled(partial(_fill, tree, reader, path, start, buffer, fresh), "read", path):
                return
            self._read.forget(path, reader)

    async def stream(
        self, path: str, start: int = 0, length: int | None = None, chunk: int = 4 << 20
    ) -> AsyncIterator[bytes]:
        tree = self._opened()
        check_path(path)
        reader = await self._calls.run(lambda: tree.fresh(lambda: FileReader(tree, path)), "read", path)
        ahead: Call[bytes] | None = None
        try:
            end = end_of_range(path, reader.size, start, length)
            for at in range(start, end, chunk):
                if ahead is None:
                    ahead = self._calls.start(partial(reader.piece, at, min(chunk, end - at)), "read", path)
                piece = await self._calls.result(ahead, "read", path)
                # The next one is read while the caller works on this one, but never two at a time: the kernel reads
                # ahead for readers that go in order.
                after = at + chunk
                if after < end:
                    ahead = self._calls.start(partial(reader.piece, after, min(chunk, end - after)), "read", path)
                yield piece
        finally:
            if ahead is not None:
                ahead.give_up()
            self._close_soon(reader)

    async def stat(self, path: str) -> ObjectInfo | None:
        tree = self._opened()
        check_path(path)
        return await self._calls.run(lambda: tree.fresh(lambda: tree.stat(path)), "look at", path)

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
            files, below = await self._calls.run(partial(tree.fresh, partial(tree.entries, top)), "list", top)
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
        self._forget(path)
        require_fence()
        await self._calls.run(lambda: tree.fresh(lambda: tree.delete(path)), "delete", path)

    async def delete_many(self, paths: Sequence[str]) -> None:
        for path in paths:
            check_path(path)
        for path in paths:
            await self.delete(path)

    async def leftovers(self, prefix: str) -> AsyncIterator[Leftover]:
        tree = self._opened()
        check_prefix(prefix)
        directories = [prefix.rpartition("/")[0]]
        while directories:
            directory = directories.pop()
            found, below = await self._calls.run(
                partial(tree.fresh, partial(tree.entries, directory, unfinished=True)), "list", directory
            )
            directories += [path for path in below if f"{path}/".startswith(prefix) or prefix.startswith(f"{path}/")]
            for info in found:
                path = finished_name(info.path)
                if path.startswith(prefix):
                    yield Leftover(path, info.path, "temporary file", info.modified_us, info.size)

    async def discard(self, leftover: Leftover) -> None:
        tree = self._opened()
        if not is_temporary(leftover.name):
            raise TargetError(f"{leftover.name!r} is no temporary file", path=leftover.path)
        require_fence()
        check_path(finished_name(leftover.name))
        await self._calls.run(lambda: tree.fresh(lambda: tree.delete(leftover.name)), "delete", leftover.name)

    async def aclose(self) -> None:
        """Close. Waits a moment for calls that still run, then leaves them to their threads. Idempotent."""
        tree, self._tree = self._tree, None
        if tree is not None:
            files: list[FileHandle | FileReader] = [*self._appended.take_all(), *self._read.take_all()]

            def close() -> None:
                for file in files:
                    file.close()
                tree.root.close()

            try:
                await asyncio.wait([Call(self._threads.submit(close)).ended], timeout=5.0)
            finally:  # hung: the descriptors go with the process
                self._threads.shutdown()
        self._threads.shutdown()

    def _opened(self) -> Tree:
        if self._tree is None:
            raise TargetError(f"the destination {self.url} is not open")
        return self._tree

    def _forget(self, path: str) -> None:
        """Before a name is taken away from its file: NFS gives an open file that is deleted another name."""
        self._appended.forget(path)
        self._read.forget(path)

    def _close_soon(self, file: FileHandle | FileReader) -> None:
        try:
            self._threads.submit(file.close)
        except RuntimeError:  # a stream that was left open when the destination was closed
            file.close()


def _fill(tree: Tree, reader: FileReader, path: str, start: int, buffer: memoryview, fresh: bool) -> bool:
    """False when the reader no longer is the file of this name: take a fresh one."""
    tree.root.check()
    try:
        found = reader.still(tree)
        if found is None:
            return False
        end_of_range(path, found.st_size, start, len(buffer))
        reader.fill(start, buffer)
    except HandleClosed:
        return False
    except OSError as error:
        if fresh or error.errno != errno.ESTALE:
            raise
        return False
    return True
