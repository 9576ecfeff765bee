"""The fence: who publishes under a lease must have it still when a request goes out, not only when it was made up.

A request that is repeated for a minute, or a process that was stopped and goes on, outlives the lease that it was begun
under. So what a coordinator runs inside :func:`fenced` is asked again before each attempt that would change anything
at the destination. Tasks that are begun inside are inside; other tasks and other processes are not: what those write
has a name of its own and is published by nobody else than the coordinator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_checks: ContextVar[tuple[Callable[[], None], ...]] = ContextVar("mover_fence", default=())


@contextmanager
def fenced(check: Callable[[], None]) -> Iterator[None]:
    """Inside, :func:`require_fence` calls ``check``, which raises when nothing may be written any more. They add up."""
    token = _checks.set((*_checks.get(), check))
    try:
        yield
    finally:
        _checks.reset(token)


def require_fence() -> None:
    """Before an attempt that changes anything: raises what the first check that fails raises."""
    current_fence()()


def current_fence() -> Callable[[], None]:
    """What :func:`require_fence` does here, to be called in a thread."""
    checks = _checks.get()

    def require() -> None:
        for check in checks:
            check()

    return require
