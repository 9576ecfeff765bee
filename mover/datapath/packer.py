"""Macro files: parts full of frames, one behind the other, at most 512 frames to a file; published when it is whole.

A file is named by set and sub number, so a retry never writes to a name that another attempt used. Parts come in any
order: the index says where a block is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

from mover.datapath.buffers import PooledBuffer
from mover.datapath.parts import PartFrame
from mover.errors import TargetError
from mover.kernel import Xxh3_128
from mover.media.frames import end_mark
from mover.media.macro import MAX_BLOCKS_PER_FILE
from mover.repository.placement import WrittenFile
from mover.settled import settled
from mover.target.base import Target, Writer

Note = Callable[[int, WrittenFile, Sequence[PartFrame]], Awaitable[None]]
_CLOSING = 2  # files that are being published while the next one is written


@dataclass(slots=True)
class _OpenFile:
    sub: int
    path: str
    writer: Writer
    frames: list[PartFrame] = field(default_factory=list)  # with their offsets in the file
    size: int = 0
    digest: Xxh3_128 = field(default_factory=Xxh3_128)
    # Kept back: should it turn out to be the last one, the end mark goes into it and not into a request of its own.
    last: PooledBuffer | None = None


class MacroFiles:
    """Writes the macro files of one set to ``macro_block_<set>.<sub>``.

    Args:
        path_of: the path of a sub number.
        backup_set_id: the set.
        threads: where digests are computed.
        first_sub, stride: the sub numbers to use; with several writers of one set each has every so many-th.
        blocks_per_file: frames that a file holds at most.
        note: told the sub number and the frames of each file that was published because it was full. The last ones are
            not worth it: the set is nearly complete then.
    """

    def __init__(
        self,
        target: Target,
        path_of: Callable[[int], str],
        backup_set_id: int,
        *,
        threads: Executor,
        first_sub: int = 0,
        stride: int = 1,
        blocks_per_file: int = MAX_BLOCKS_PER_FILE,
        note: Note | None = None,
    ) -> None:
        self.backup_set_id = backup_set_id
        # A part holds a block at least: some stores take a thousand parts.
        self.blocks_per_file = min(blocks_per_file, target.capabilities.max_parts)
        self.bytes_written = 0
        """Bytes handed to the destination so far, or about to be."""
        self.files: list[WrittenFile] = []
        """What was published, in the order of sub numbers once :meth:`finish` returned."""
        self._target = target
        self._path_of = path_of
        self._threads = threads
        self._sub = first_sub
        self._stride = stride
        self._note = note
        self._turn = asyncio.Lock()
        self._file: _OpenFile | None = None
        self._closing: list[asyncio.Task[None]] = []

    async def append(self, part: PooledBuffer, frames: Sequence[PartFrame]) -> tuple[int, int]:
        """Take over a part with these whole frames in it, not more than go into a file.

        Returns the sub number of its file and its offset there. Returns when the destination has room for another.
        Raises what the destination raises, also for what was appended before.
        """
        kept = False
        try:
            async with self._turn:
                if self._file is not None and len(self._file.frames) + len(frames) > self.blocks_per_file:
                    await self._close(full=True)
                self._raise_failed()
                if self._file is None:
                    path = self._path_of(self._sub)
                    self._file = _OpenFile(self._sub, path, await self._target.create(path, write_once=True))
                    self._sub += self._stride
                file = self._file
                await settled(self._threads, file.digest.update, part.data)
                offset = file.size
                file.size += part.filled
                file.frames += (replace(frame, offset=offset + frame.offset) for frame in frames)
                self.bytes_written += part.filled
                before, file.last = file.last, part
                kept = True
                if before is not None:
                    await file.writer.write(before)
                return file.sub, offset
        finally:
            # Also when it is cancelled while others have their turn.
            if not kept:
                part.release()

    async def finish(self) -> None:
        """Publish what is not published yet."""
        async with self._turn:
            await self._close(full=False)
            await asyncio.gather(*self._closing)
            self.files = by_sub(self.files)

    async def abort(self) -> None:
        """Remove what is unfinished. Published files stay; they belong to a set that will never be complete."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        file, self._file = self._file, None
        if file is not None:
            if file.last is not None:
                file.last.release()
            await file.writer.abort()

    async def _close(self, *, full: bool) -> None:
        """Put the end mark behind the open file and publish it beside whatever comes next."""
        if self._file is None:
            return
        file, last = self._file, self._file.last
        assert last is not None, "a file is opened for a part"
        mark = end_mark()
        last.buffer[last.filled : last.filled + len(mark)] = mark
        last.filled += len(mark)
        file.digest.update(mark)
        file.size += len(mark)
        self.bytes_written += len(mark)
        file.last = None
        await file.writer.write(last)
        while len(self._closing) >= _CLOSING:
            done = self._closing[0]
            await asyncio.wait([done])
            self._raise_failed()
            self._closing.remove(done)
        self._file = None
        self._closing.append(asyncio.create_task(self._publish(file, noted=full)))

    async def _publish(self, file: _OpenFile, *, noted: bool) -> None:
        try:
            info = await file.writer.commit()
        except BaseException:
            await file.writer.abort()
            raise
        if info.size != file.size:
            raise TargetError(f"{file.path} has {info.size} bytes at the destination, {file.size} were written to it")
        written = WrittenFile(file.path, info.size, file.digest.digest())
        self.files.append(written)
        if noted and self._note is not None:
            await self._note(file.sub, written, file.frames)

    def _raise_failed(self) -> None:
        for task in self._closing:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error


def by_sub(files: Iterable[WrittenFile]) -> list[WrittenFile]:
    """Macro files in the order of their sub numbers: they are published in any order."""
    return sorted(files, key=lambda file: int(file.path.rpartition(".")[2]))
