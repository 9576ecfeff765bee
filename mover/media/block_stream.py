"""The blocks of an archive data file that arrives in pieces: what holds, what does not, and what follows it.

:func:`mover.media.archive.scan_data_file` for files that are not held whole. Nothing is raised for bad bytes: a bad run
is reported as a :class:`BadRun`, and reading goes on at the next whole block behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mover.errors import FormatError
from mover.media.archive import (
    BLOCK_MAGIC,
    BLOCK_META_SIZE,
    BLOCK_VERSION,
    DATA_FILE_LIMIT,
    TAIL_SIZE,
    ArchiveBlock,
    parse_block,
    parse_block_meta,
)
from mover.media.serial import Buffer

_SIGNATURE = struct.pack(">hh", BLOCK_MAGIC, BLOCK_VERSION)
_LARGEST = DATA_FILE_LIMIT + BLOCK_META_SIZE + TAIL_SIZE  # a meta that claims more is not believed


@dataclass(frozen=True, slots=True)
class BadRun:
    """Bytes that are no whole block. ``until`` is where the next one begins, None when none does.

    ``cut``: all that is wrong is that the file ends too early, as when its writer died.
    """

    offset: int
    until: int | None
    reason: str
    cut: bool = False


class BlockStream:
    """Blocks of one data file, front to back.

    Args:
        size: of the file, bytes. It is needed to tell a torn tail from a block that has not arrived yet.

    ``feed`` takes the next bytes and yields :class:`ArchiveBlock` and :class:`BadRun` as they become certain; consume
    it before feeding more. Blocks are views into memory that is only theirs. Holds one block and a piece.
    """

    __slots__ = ("_bad", "_buffer", "_cut", "_reason", "offset", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.offset = 0  # of the first byte in the buffer
        self._buffer = b""
        self._bad: int | None = None  # where a run of bad bytes began
        self._reason = ""
        self._cut = False

    def feed(self, data: Buffer) -> Iterator[ArchiveBlock | BadRun]:
        """What these bytes complete."""
        self._buffer = b"".join((self._buffer, data)) if self._buffer else bytes(data)
        position = 0
        view = memoryview(self._buffer)
        while position < len(view):
            if self._bad is not None:
                found = self._buffer.find(_SIGNATURE, position)
                if found < 0:
                    keep = 0 if self._arrived(len(view)) else len(_SIGNATURE) - 1
                    position = max(position, len(view) - keep)
                    break
                position = found
            here = self.offset + position
            needed = self._needed(view[position:], here)
            if needed is None:
                if self._arrived(len(view)):
                    position = self._refuse(position, here, "cut off: the file ends inside it", cut=True)
                    continue
                break
            if needed > len(view) - position:
                if here + needed > self.size:
                    text = f"expected {needed} bytes, {self.size - here} are left in the file"
                    position = self._refuse(position, here, text, cut=True)
                    continue
                break
            try:
                block = parse_block(view, offset=here, base_offset=self.offset)
            except FormatError as error:
                position = self._refuse(position, here, error.message)
                continue
            if self._bad is not None:
                yield BadRun(self._bad, here, self._reason)
                self._bad = None
            yield block
            position += block.size
        self._buffer = self._buffer[position:]
        self.offset += position

    def finish(self) -> BadRun | None:
        """The file is over: the torn tail, if it has one."""
        if self._bad is None and self._buffer:
            self._refuse(0, self.offset, "cut off: the file ends inside it", cut=True)
        return None if self._bad is None else BadRun(self._bad, None, self._reason, self._cut)

    def _arrived(self, buffered: int) -> bool:
        return self.offset + buffered >= self.size

    def _needed(self, view: memoryview, here: int) -> int | None:
        """Bytes of the block at the start of ``view``; None when its meta has not arrived. 104 for a bad meta."""
        if len(view) < BLOCK_META_SIZE:
            return None
        try:
            meta = parse_block_meta(view[:BLOCK_META_SIZE], offset=here)
        except FormatError:
            return BLOCK_META_SIZE  # parse_block says it in full
        return meta.total_length + TAIL_SIZE if meta.total_length + TAIL_SIZE <= _LARGEST else BLOCK_META_SIZE

    def _refuse(self, position: int, here: int, reason: str, *, cut: bool = False) -> int:
        if self._bad is None:
            self._bad, self._reason, self._cut = here, reason, cut
        return position + 1
