"""What ``read_blocks`` is asked for and what it answers: shared by both twins."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mover.kernel.macroblock import MacroHeader

if TYPE_CHECKING:
    from typing_extensions import Buffer

READ_LIMIT = 1 << 30
"""Bytes that one read of a batch may ask for."""


class Read(NamedTuple):
    """A place in the file, and where its bytes go."""

    offset: int
    length: int
    """Bytes, at most READ_LIMIT and at most what ``buffer`` holds."""
    buffer: Buffer
    """Writable. For O_DIRECT page aligned, as are offset and length."""


class BlockRead(NamedTuple):
    """What came of one read."""

    error: int
    """errno of the system call that failed; 0 = none did."""
    filled: int
    """Bytes that were read. Fewer than asked for without an error: the file ends there."""
    header: MacroHeader | None
    """As ``macroblock_check`` says of the bytes; None unless all of them were read."""
    digest: bytes
    """XXH3-128 of the ``used_length`` bytes of a block that is ok, else empty."""


def check_read(offset: int, length: int, room: int) -> None:
    """Raises ValueError for a read that cannot be one."""
    if offset < 0 or not 0 < length <= min(room, READ_LIMIT):
        raise ValueError(f"cannot read {length} bytes at {offset} into a buffer of {room}")
