from array import array

from typing_extensions import Buffer

from mover.kernel.palf import PalfFrames, PalfWalk

def palf_walk(
    buf: Buffer,
    lsn: int,
    *,
    accum: int | None = None,
    log_id: int | None = None,
    until_lsn: int | None = None,
) -> PalfWalk: ...
def palf_frame_groups(
    into: Buffer,
    buf: Buffer,
    lsn: int,
    groups: array[int],
    pg_key: bytes,
    epoch: int,
    accum: int,
    block_header: Buffer | None = None,
    *,
    start: int = 0,
    max_bytes: int = 1_966_080,
) -> tuple[int, int, int]: ...
def palf_unframe(payload: Buffer, accum: int = 0) -> PalfFrames: ...
