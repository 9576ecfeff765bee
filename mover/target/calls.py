"""Calls into a file system that may never answer: in threads, with a deadline, and with typed errors.

A thread that is in the kernel can not be called back. Whoever waits for it goes on without it, after the deadline or
when cancelled; the thread stays behind with whatever memory and descriptors it has. When every thread of a destination
hangs like that, further calls fail at once instead of waiting in line behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from mover.errors import MoverError, TargetError, UnreachableError
from mover.target.handles import HandleClosed
from mover.target.oserrors import target_error
from mover.target.threads import Threads

T = TypeVar("T")
GRACE = 10.0
"""Seconds that a cancelled caller waits for a thread that has its memory, or for the end of a clean-up."""


class Call(Generic[T]):
    """A call that was started."""

    def __init__(self, job: Future[T]) -> None:
        self._job = job
        self.ended = asyncio.wrap_future(job)
        """Done when no thread is in the call any more, nor will be: what it used is free again."""
        self.ended.add_done_callback(_look_at)

    def give_up(self) -> None:
        """Nobody wants the result. A call that has not begun never will; one that has goes on."""
        self._job.cancel()


class Calls:
    """How the parts of a :class:`mover.target.files.FileTarget` reach the file system.

    Args:
        threads: where the calls block.
        timeout: seconds after which a call counts as hung.
        root: the destination, for messages.
    """

    def __init__(self, threads: Threads, timeout: float, root: str) -> None:
        self.timeout = timeout
        self._threads = threads
        self._root = root

    def start(self, fn: Callable[[], T], doing: str, path: str) -> Call[T]:
        """Begin ``fn()``. Raises UnreachableError when every thread hangs already."""
        if self._threads.all_busy_for(self.timeout):
            raise self._silent(doing, path, "every thread waits for the file system already")
        return Call(self._threads.submit(fn))

    async def result(self, call: Call[T], doing: str, path: str) -> T:
        """What it returned. Raises UnreachableError after the deadline; the call goes on, also when this is cancelled.

        Any OSError becomes the typed error of a destination.
        """
        await asyncio.wait([call.ended], timeout=self.timeout)
        if not call.ended.done():
            raise self._silent(doing, path, f"the file system did not answer within {self.timeout:g} s")
        try:
            if not call.ended.cancelled():
                return call.ended.result()
        except HandleClosed:
            pass
        except OSError as error:
            raise target_error(error, doing, path, self._root) from error
        raise TargetError(f"can not {self._place(doing, path)}: it was given up meanwhile", path=path)

    async def run(self, fn: Callable[[], T], doing: str, path: str) -> T:
        """``fn()``, which must own all it works on: it may still be going on when this was cancelled or raised."""
        call = self.start(fn, doing, path)
        try:
            return await self.result(call, doing, path)
        except BaseException:
            call.give_up()
            raise

    async def settled(self, fn: Callable[[], T], doing: str, path: str) -> T:
        """``fn()``, which works on memory of the caller.

        No thread has the memory when this returns or raises, with one exception: UnreachableError, which a caller who
        was cancelled gets too when the thread does not come back within ``GRACE``.
        """
        call = self.start(fn, doing, path)
        try:
            return await self.result(call, doing, path)
        except asyncio.CancelledError:
            call.give_up()
            if not await _ended(call, min(GRACE, self.timeout)):
                reason = "the file system does not answer, and a thread still has the memory"
                raise self._silent(doing, path, reason) from None
            raise
        except MoverError:
            call.give_up()
            raise

    def _silent(self, doing: str, path: str, reason: str) -> UnreachableError:
        message = f"can not {self._place(doing, path)}: {reason}"
        return UnreachableError(message, hint="a hung NFS server blocks every call; check the mount", path=path)

    def _place(self, doing: str, path: str) -> str:
        return f"{doing} {path!r} at {self._root}" if path else f"{doing} {self._root}"


async def _ended(call: Call[T], seconds: float) -> bool:
    """Wait for the thread; a second cancel does not shorten it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not call.ended.done() and (left := deadline - loop.time()) > 0:
        try:
            await asyncio.wait([call.ended], timeout=left)
        except asyncio.CancelledError:
            continue
    return call.ended.done()


def _look_at(ended: asyncio.Future[T]) -> None:
    """An error that nobody waits for any more is not worth a warning."""
    if not ended.cancelled():
        ended.exception()
