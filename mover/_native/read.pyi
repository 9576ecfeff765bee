from collections.abc import Sequence

from mover.kernel.read import BlockRead, Read

def read_blocks(fd: int, reads: Sequence[Read]) -> list[BlockRead]: ...
