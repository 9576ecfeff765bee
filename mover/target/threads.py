"""Threads for calls that block: file systems, and digests of large buffers.

Daemon threads on purpose. A call into a hung NFS server never returns, and the standard pool would wait for it when the
interpreter exits: one dead mount would keep the whole program from ending.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Future[Any], Callable[[], Any]]


class Threads(Executor):
    """A fixed number of daemon threads, started as they are needed. An Executor, so that other libraries can use it."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._waiting = 0  # jobs queued or running
        self._begun: dict[int, float] = {}  # by thread: when its job began
        self._closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the threads of {self._name} are closed")
            self._waiting += 1
            if self._started < min(self._count, self._waiting):
                self._started += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Let the threads end after the jobs that are queued; does not wait for them, see the module's reason."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            started = self._started
        for _ in range(started):
            self._jobs.put(None)

    def all_busy_for(self, seconds: float) -> bool:
        """Whether each of the threads has been in one and the same call for that long."""
        before = time.monotonic() - seconds
        with self._lock:
            return len(self._begun) == self._count and all(begun < before for begun in self._begun.values())

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            with self._lock:
                self._begun[threading.get_ident()] = time.monotonic()
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:  # handed to whoever waits, whatever it is
                    future.set_exception(error)
                else:
                    future.set_result(result)
            # Neither the job nor its result may stay alive while this thread waits for the next one.
            del future, call, job
            with self._lock:
                del self._begun[threading.get_ident()]
                self._waiting -= 1
