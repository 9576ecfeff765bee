"""Work side by side that fails as one piece of work would."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from mover.errors import MoverError


async def first_error(*work: Coroutine[Any, Any, None]) -> None:
    """Run coroutines together; the first failure cancels the others and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(item)
    except BaseExceptionGroup as exc:
        errors = [error for error in exc.exceptions if isinstance(error, MoverError)]
        raise (errors or exc.exceptions)[0] from None
