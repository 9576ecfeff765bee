from collections.abc import Sequence

from typing_extensions import Buffer

from mover.kernel.unpack import Expected

def unpack_frames(
    data: Buffer,
    frames: Sequence[Expected],
    slabs: Buffer,
    suffix: bytes,
    *,
    open_from: int,
    open_until: int,
    keep: bool,
) -> bytes: ...
def _crc_join(first: int, second: int, length: int) -> int: ...
