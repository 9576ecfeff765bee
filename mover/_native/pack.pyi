from collections.abc import Sequence

from typing_extensions import Buffer

from mover.kernel.pack import PackedFrame

def pack_frames(
    out: Buffer,
    start: int,
    blocks: Sequence[tuple[Buffer, Buffer, int]],
    suffix: bytes,
    *,
    compressor: int,
    level: int,
    keep_permille: int,
) -> list[PackedFrame]: ...
