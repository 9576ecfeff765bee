"""Open files that several jobs share, and a bounded number of them that are kept open."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class HandleClosed(Exception):
    """The file was given up: its writer aborted, or the handle made room for others."""


class FileHandle:
    """A descriptor that several jobs use, also at the same time. The last one of them closes it.

    A cancelled coroutine leaves its job running in a thread. Were the descriptor closed under it, its number could be
    given to another file, which would then receive the bytes.
    """

    def __init__(self, fd: int) -> None:
        self.turn = threading.Lock()
        """For jobs that must not overlap: appends."""
        self._fd = fd
        self._users = 0
        self._closing = False
        self._lock = threading.Lock()

    @contextmanager
    def use(self) -> Iterator[int]:
        """The descriptor, which stays open meanwhile. Raises HandleClosed."""
        with self._lock:
            if self._closing:
                raise HandleClosed
            self._users += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._users -= 1
                last = self._closing and self._users == 0
            if last:
                os.close(self._fd)

    def close(self) -> None:
        """Close it as soon as nobody uses it. Does not wait for them. Idempotent."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            idle = self._users == 0
        if idle:
            os.close(self._fd)


class Closable(Protocol):
    """What a :class:`Recent` holds."""

    def close(self) -> None: ...


H = TypeVar("H", bound=Closable)


class Recent(Generic[H]):
    """The files that were used last, by path, ``limit`` of them at most. For one event loop.

    ``dispose`` is what happens to the others: closing may block, so it belongs into a thread.
    """

    def __init__(self, limit: int, dispose: Callable[[H], object]) -> None:
        self._limit = limit
        self._dispose = dispose
        self._files: OrderedDict[str, H] = OrderedDict()  # least recently used first

    def get(self, path: str) -> H | None:
        found = self._files.get(path)
        if found is not None:
            self._files.move_to_end(path)
        return found

    def keep(self, path: str, opened: H) -> H:
        """The file to use from now on: ``opened``, or the one that somebody else opened meanwhile."""
        kept = self._files.setdefault(path, opened)
        self._files.move_to_end(path)
        if kept is not opened:
            self._dispose(opened)
        while len(self._files) > self._limit:
            self._dispose(self._files.popitem(last=False)[1])
        return kept

    def forget(self, path: str, opened: H | None = None) -> None:
        """Let go of the file of this name, when it is ``opened`` or that is not given."""
        known = self._files.get(path)
        if known is not None and opened in (None, known):
            del self._files[path]
            self._dispose(known)

    def take_all(self) -> list[H]:
        """Everything, which is the caller's to close."""
        taken = [*self._files.values()]
        self._files.clear()
        return taken
