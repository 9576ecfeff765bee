"""Awaiting many pieces of work, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

AT_A_TIME = 8  # PGs whose files are read or written


async def side_by_side(jobs: Sequence[Awaitable[None]], at_a_time: int = AT_A_TIME) -> None:
    """Await all; every one was tried when this returns, or raises the first error."""
    gate = asyncio.Semaphore(at_a_time)

    async def one(job: Awaitable[None]) -> None:
        async with gate:
            await job

    results = await asyncio.gather(*(one(job) for job in jobs), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
