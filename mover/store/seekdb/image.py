"""What a capture knows about every block so far: a few arrays, 26 bytes per block, whatever the store's size."""

from __future__ import annotations

from array import array

from mover.kernel import xxh3_128
from mover.store.base import BlockIdentity
from mover.store.seekdb.blocks import BlockHeader, BlockImage


class ImageMap:
    """Kind, owner and content mark of every block that was looked at.

    The mark of an sstable block is its identity (which proves content); of every other kind a digest of the bytes.
    """

    def __init__(self) -> None:
        self._captured = bytearray()
        self._marks = bytearray()
        self._kinds = bytearray()
        self._tablets = array("Q")

    def __len__(self) -> int:
        return len(self._captured)

    def _grow(self, count: int) -> None:
        missing = count - len(self._captured)
        if missing > 0:
            self._captured.extend(bytes(missing))
            self._kinds.extend(bytes(missing))
            self._marks.extend(bytes(16 * missing))
            self._tablets.extend([0] * missing)

    def saw(self, header: BlockHeader) -> None:
        """Remember kind and owner of a block whose header was read."""
        index = header.block_index
        self._grow(index + 1)
        self._kinds[index] = header.kind
        self._tablets[index] = header.tablet_id

    def yielded(self, image: BlockImage) -> None:
        """Remember that exactly this content is part of the capture now."""
        self._set(image.identity, content_mark(image))

    def proven(self, identity: BlockIdentity) -> None:
        """The same for an sstable block that was proven by its header alone."""
        self._set(identity, identity_mark(identity))

    def _set(self, identity: BlockIdentity, mark: bytes) -> None:
        index = identity.block_index
        self._grow(index + 1)
        self._captured[index] = 1
        self._kinds[index] = identity.kind
        self._tablets[index] = identity.tablet_id
        self._marks[16 * index : 16 * index + 16] = mark

    def has(self, index: int, mark: bytes) -> bool:
        """Is the content with this mark captured at ``index``?"""
        return (
            index < len(self._captured)
            and self._captured[index] == 1
            and self._marks[16 * index : 16 * index + 16] == mark
        )

    def captured(self, index: int) -> bool:
        """Is some content captured at ``index``?"""
        return index < len(self._captured) and self._captured[index] == 1

    def kind(self, index: int) -> int:
        """The kind last seen; 0 = none."""
        return self._kinds[index] if index < len(self._kinds) else 0

    def tablet(self, index: int) -> int:
        """Owner of an sstable block by its header; 0 for other kinds."""
        return self._tablets[index] if index < len(self._tablets) else 0

    def forget(self, index: int) -> None:
        """The block was seen without content: it is not part of the image any more."""
        if index < len(self._captured):
            self._captured[index] = 0
            self._kinds[index] = 0
            self._tablets[index] = 0

    def yielded_blocks(self) -> list[int]:
        """Indexes whose present content was captured."""
        return [index for index, captured in enumerate(self._captured) if captured]


def content_mark(image: BlockImage) -> bytes:
    """The mark of a block that was read."""
    return identity_mark(image.identity) if image.identity.immutable else image.digest


def identity_mark(identity: BlockIdentity) -> bytes:
    """16 bytes that are equal for equal identities of blocks whose header states their content."""
    fields = (
        identity.kind,
        identity.used_length,
        identity.tablet_id,
        identity.logical_version & (1 << 64) - 1,
        identity.data_seq & (1 << 64) - 1,
        identity.payload_checksum & (1 << 64) - 1,
        identity.data_checksum & (1 << 64) - 1,
    )
    return xxh3_128(array("Q", fields).tobytes())
