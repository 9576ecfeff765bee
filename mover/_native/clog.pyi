from collections.abc import Sequence

from typing_extensions import Buffer

from mover.kernel.clog import ClogWalk

def clog_walk(data: Buffer, start: int = 0, timestamp: int = 0) -> ClogWalk: ...
def clog_gather(data: Buffer, walk: ClogWalk, rows: Sequence[int]) -> bytes: ...
