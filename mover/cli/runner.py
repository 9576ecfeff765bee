"""Running a coroutine as the whole work of the process: uvloop, the display's clock, and signals.

First SIGINT or SIGTERM: a clean stop, by the job's own ``stop`` event while it listens to it, else by cancellation.
Second signal: the process ends at once. What was published stays valid either way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mover.cli.ending import SIGNAL, Interrupted
from mover.cli.progress import Display
from mover.errors import MoverError

T = TypeVar("T")
_SHOW_CURSOR = "\x1b[?25h"


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What the job returned, and the signal that made it return, or None."""

    value: T
    signal: int | None

    def status(self, status: int) -> int:
        """The exit status: ``status``, or 128 + the signal."""
        return status if self.signal is None else SIGNAL + self.signal


class Control:
    """The job's side of signals."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.received: int | None = None
        self._graceful = False
        self._task: asyncio.Task[object] | None = None

    @contextlib.contextmanager
    def graceful(self) -> Iterator[asyncio.Event]:
        """While inside, a signal sets the event and the job ends itself; outside, a signal cancels it."""
        self._graceful = True
        try:
            yield self.stop
        finally:
            self._graceful = False

    def attach(self, task: asyncio.Task[object]) -> None:
        """The task that is cancelled outside :meth:`graceful`."""
        self._task = task

    def receive(self, number: int) -> None:
        """A signal came; runs on the event loop."""
        if self.received is not None:
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR.encode())
            os._exit(SIGNAL + number)
        self.received = number
        self.stop.set()
        if sys.stderr.isatty():
            sys.stderr.write("stopping; once more to leave at once\n")
        if not self._graceful and self._task is not None:
            self._task.cancel()


def run_job(body: Callable[[Control], Awaitable[T]], display: Display) -> Outcome[T]:
    """Run ``body`` to its end with the display up.

    Raises:
        Interrupted: a signal ended it before it had a result.
        MoverError: as the body raised it, when no signal came first.
    """
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_supervise(body, display))


async def _supervise(body: Callable[[Control], Awaitable[T]], display: Display) -> Outcome[T]:
    loop = asyncio.get_running_loop()
    control = Control()

    async def job() -> T:
        return await body(control)

    task = loop.create_task(job())
    control.attach(task)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, control.receive, int(number))
    ticker = loop.create_task(_tick(display))
    try:
        with display:
            value = await task
        return Outcome(value, control.received)
    except asyncio.CancelledError:
        if control.received is None:
            raise
        raise Interrupted(control.received) from None
    except MoverError as error:
        if control.received is None:
            raise
        raise Interrupted(control.received, error) from error
    finally:
        ticker.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _tick(display: Display) -> None:
    while True:
        await asyncio.sleep(display.interval)
        display.tick()
