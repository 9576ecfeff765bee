"""Work in threads on memory or descriptors that somebody else gets next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Args = TypeVarTuple("Args")


async def settled(threads: Executor | None, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    """``function(*args)`` in a thread; whatever happens, the thread has let go of ``args`` when this returns.

    A thread can not be cancelled. A caller that is waits for it and is cancelled then, so that no buffer is given to
    another block, and no descriptor closed, under a thread that still uses it.
    """
    running = asyncio.get_running_loop().run_in_executor(threads, function, *args)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:  # once more: it changes nothing
                continue
        if not running.cancelled():
            running.exception()
        raise
