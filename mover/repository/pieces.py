"""A file at a destination as an ordinary iterator, for decoders that run in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from mover.target.base import Target

PIECE = 4 << 20


def pieces(target: Target, path: str, size: int, loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """``size`` bytes of a file, 4 MiB at a time; consume it in a thread other than ``loop``'s.

    Raises what :meth:`Target.get` raises.
    """
    for start in range(0, size, PIECE):
        coming = asyncio.run_coroutine_threadsafe(target.get(path, start, min(PIECE, size - start)), loop)
        try:
            yield coming.result()
        finally:
            # A decoder that gave up, or a loop that is being closed: nobody waits for the answer any more.
            coming.cancel()
