"""Parts that are being filled: frames behind each other in a buffer, and which block each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mover.datapath.buffers import END_MARK_ROOM, FRAME_ROOM, PooledBuffer
from mover.datapath.compression import Chooser
from mover.datapath.intake import Arrival
from mover.kernel import Order, PackedFrame, pack_frames
from mover.media.macro import MACRO_SUFFIX, BlockMeta, macro_prefix
from mover.media.sealed import Sealing
from mover.store.base import BlockIdentity


@dataclass(frozen=True, slots=True)
class PartFrame:
    """A frame in a part."""

    number: int
    identity: BlockIdentity
    digest: bytes
    offset: int  # in the part
    length: int


@dataclass(slots=True)
class OpenPart:
    """A part with room for more. The room for an end mark is left alone."""

    buffer: PooledBuffer
    sealing: Sealing | None = None  # encrypts every frame
    frames: list[PartFrame] = field(default_factory=list)

    def room(self, limit: int) -> int:
        """Blocks that fit however little they compress; ``limit`` frames are the most a part may have."""
        spare = len(self.buffer.buffer) - END_MARK_ROOM - self.buffer.filled
        return min(spare // FRAME_ROOM, limit - len(self.frames))

    def pack(self, arrivals: Sequence[Arrival], orders: Sequence[Order], chooser: Chooser) -> list[PackedFrame]:
        """Frame blocks into the part, in order, as far as they fit. Runs in a thread, most of it without the GIL.

        A block is ``prefix + used bytes + suffix``, see FORMAT.md; its meta entry is in the prefix.
        """
        work = []
        for arrival, order in zip(arrivals, orders, strict=True):
            data = arrival.block.data
            work.append((macro_prefix(block_meta(arrival.block.identity).pack(), len(data)), data, order))
        if self.sealing is None:
            packed = self._frame(self.buffer.filled, work, chooser)
        else:
            # One at a time: a frame grows when it is encrypted, and while it is in the cache.
            packed, where = [], self.buffer.filled
            for one in work:
                for frame in self._frame(where, [one], chooser):
                    packed.append(self.sealing.in_place(self.buffer.buffer, where, frame))
                    where += packed[-1].length
        for arrival, frame in zip(arrivals, packed, strict=False):
            block = arrival.block
            where = self.buffer.filled
            self.frames.append(PartFrame(arrival.number, block.identity, block.digest, where, frame.length))
            self.buffer.filled += frame.length
        return packed

    def _frame(
        self, where: int, work: Sequence[tuple[bytes, memoryview, Order]], chooser: Chooser
    ) -> list[PackedFrame]:
        compression = chooser.compression
        return pack_frames(
            self.buffer.buffer[:-END_MARK_ROOM],
            where,
            work,
            MACRO_SUFFIX,
            compressor=compression.compressor,
            level=chooser.level,
            keep_permille=compression.keep_permille,
        )

    def pour(self, other: OpenPart, limit: int) -> None:
        """Move frames from the end of ``other`` here while there is room."""
        room = len(self.buffer.buffer) - END_MARK_ROOM
        while other.frames and len(self.frames) < limit:
            frame = other.frames[-1]
            begin, end = self.buffer.filled, self.buffer.filled + frame.length
            if end > room:
                return
            self.buffer.buffer[begin:end] = other.buffer.buffer[frame.offset : frame.offset + frame.length]
            self.frames.append(PartFrame(frame.number, frame.identity, frame.digest, begin, frame.length))
            self.buffer.filled = end
            other.frames.pop()
            other.buffer.filled = frame.offset


def merge(parts: list[OpenPart], limit: int) -> list[OpenPart]:
    """The same frames in as few parts, all but the last of them full: small parts are for the end of a file only.

    Releases the buffers it empties.
    """
    left = sorted(parts, key=lambda part: part.buffer.filled)
    merged: list[OpenPart] = []
    while left:
        part = left.pop()
        while left:
            part.pour(left[0], limit)
            if left[0].frames:
                break
            left.pop(0).buffer.release()
        merged.append(part)
    return merged


def block_meta(identity: BlockIdentity) -> BlockMeta:
    """The meta entry that travels with a block."""
    return BlockMeta(
        identity.block_index,
        identity.kind,
        identity.used_length,
        identity.tablet_id,
        identity.logical_version,
        identity.data_seq,
        identity.payload_checksum,
        identity.data_checksum,
    )
