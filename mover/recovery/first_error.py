"""Work side by side that fails as one piece of work would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from mover.errors import MoverError

T = TypeVar("T")


async def first_error(*work: Coroutine[Any, Any, None]) -> None:
    """Run coroutines together; the first failure cancels the others and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(item)
    except BaseExceptionGroup as exc:
        errors = [error for error in exc.exceptions if isinstance(error, MoverError)]
        raise (errors or exc.exceptions)[0] from None


async def each(items: Iterable[T], count: int, work: Callable[[T], Awaitable[None]]) -> None:
    """``work`` for every item, ``count`` at a time, however many there are; the first failure ends them all."""
    remaining = iter(items)

    async def worker() -> None:
        for item in remaining:
            await work(item)

    await first_error(*(worker() for _ in range(count)))
