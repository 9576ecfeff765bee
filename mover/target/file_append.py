"""Appending to a file on ``file://``, past the page cache where memory and place in the file allow.

Log is written once and read, if ever, after a crash: pages of it would only push others out, and copying into fresh
pages costs more than all else that archiving does. Where the memory lies at the same place in its page as the bytes
will in the file, the whole pages of an append are written with O_DIRECT, the ends through the cache; the two never
share a page, so they do not disturb each other.
"""

from __future__ import annotations

import errno
import fcntl
import os

from mover.errors import TargetError
from mover.target.alignment import ALIGNMENT, NO_DIRECT, direct_length
from mover.target.base import Buffer
from mover.target.handles import FileHandle, HandleClosed
from mover.target.tree import Tree, write_all

_WORTH_IT = 64 << 10  # bytes; less goes through the cache with one call


def append_to(tree: Tree, handle: FileHandle, path: str, offset: int, data: Buffer, fresh: bool) -> bool:
    """Write ``data`` at ``offset`` and make it durable; what was behind ``offset`` is cut off. Blocks.

    False when the handle no longer is the file of this name: take a fresh one.
    """
    tree.root.check()
    try:
        with handle.turn, handle.use() as fd:
            found = os.fstat(fd)
            if not tree.leads_to(path, found):
                return False
            if found.st_size < offset:
                message = f"{path!r} ends at {found.st_size}, before the offset {offset} that is appended at"
                hint = "published bytes are missing at the destination; validate it before going on"
                raise TargetError(message, hint=hint, path=path, offset=offset)
            if found.st_size > offset:
                os.ftruncate(fd, offset)
            _write(fd, memoryview(data).cast("B"), offset)
            os.fdatasync(fd)
    except HandleClosed:
        return False
    except OSError as error:
        if fresh or error.errno != errno.ESTALE:
            raise
        return False
    return True


def _write(fd: int, view: memoryview, offset: int) -> None:
    head = -offset % ALIGNMENT
    whole = direct_length(view[head:], offset + head) if len(view) >= _WORTH_IT else 0
    if whole:
        write_all(fd, view[:head], offset)
        if _write_direct(fd, view[head : head + whole], offset + head):
            view, offset = view[head + whole :], offset + head + whole
    write_all(fd, view, offset)


def _write_direct(fd: int, view: memoryview, offset: int) -> bool:
    """False where there is no O_DIRECT, or not for sectors of this size. The descriptor is ours alone meanwhile."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
        write_all(fd, view, offset)
    except OSError as error:
        if error.errno not in NO_DIRECT:
            raise
        return False
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    return True
