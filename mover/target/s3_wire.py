"""Requests over kept connections, in threads that block.

A blocking socket takes a whole part in one call with the GIL released, straight from its memory; nothing that polls is
as cheap. Such a call has no deadline of its own: the event loop keeps the time and shuts the socket down under the
thread, which then returns at once.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Protocol

_TOGETHER = 16 << 10  # a body as short as that goes out in one piece with the head
_DOCUMENT = 16 << 20  # bytes of an answer that is not an object
IDLE_SECONDS = 60.0
_GONE = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class Stopped(Exception):
    """The event loop has ended this attempt."""


class ConnectFailed(Exception):
    """No connection could be made; the cause says why."""


class Connects(Protocol):
    """What makes connections."""

    def connect(self) -> HTTPConnection: ...


class Attempt:
    """What a thread and the event loop know of each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holds = False
        self._socket: socket.socket | None = None
        self.stopped = False
        self.answered = False  # the head of the answer is there

    @contextmanager
    def memory(self, sock: socket.socket | None = None) -> Iterator[None]:
        """For the thread: inside, it works on the caller's memory. Raises Stopped when that is taken back already."""
        with self._lock:
            if self.stopped:
                raise Stopped
            self._holds, self._socket = True, sock
        try:
            yield
        finally:
            with self._lock:
                self._holds, self._socket = False, None

    def stop(self) -> bool:
        """For the loop: end it. Whether the thread has the memory still; it lets go at once, and takes none again."""
        with self._lock:
            self.stopped = True
            if self._socket is not None:
                try:
                    # The plain one: SSLSocket.shutdown forgets its TLS first, and what the thread sends next would go
                    # out in the clear.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                except OSError:
                    pass  # it is broken already
            return self._holds


class Answer:
    """The head of an answer, and its body where it is not in the caller's memory."""

    __slots__ = ("body", "filled", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.body = b""
        self.filled = 0


class Connections:
    """Kept connections to one place, the one used last first. Thread safe."""

    def __init__(self, site: Connects) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._idle: list[tuple[HTTPConnection, float]] = []
        self._closed = False

    def exchange(
        self, attempt: Attempt, method: str, head: bytes, body: memoryview, into: memoryview | None, whole: bool
    ) -> Answer:
        """One request and its answer. Blocks until the attempt is stopped.

        A kept connection that turns out to be closed is replaced once by a new one, as long as nothing was answered.

        Args:
            head: with its empty line.
            into: memory for the body of a success.
            whole: the body is an object that is wanted, of whatever size.

        Raises Stopped, ConnectFailed, HTTPException and OSError.
        """
        connection = self._take()
        if connection is not None:
            try:
                return self._use(connection, attempt, method, head, body, into, whole)
            except _GONE:
                if attempt.stopped:
                    raise Stopped from None
        try:
            connection = self._site.connect()
        except OSError as error:
            raise ConnectFailed from error
        return self._use(connection, attempt, method, head, body, into, whole)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _use(
        self,
        connection: HTTPConnection,
        attempt: Attempt,
        method: str,
        head: bytes,
        body: memoryview,
        into: memoryview | None,
        whole: bool,
    ) -> Answer:
        keep = False
        try:
            with attempt.memory(connection.sock):
                unsent = _send(connection.sock, head, body)
                response = HTTPResponse(connection.sock, method=method)
                try:
                    try:
                        response.begin()
                        attempt.answered = True
                    except (OSError, HTTPException):
                        if unsent is not None:
                            raise unsent from None
                        raise
                    answer, complete = _read(response, into, whole)
                finally:
                    response.close()
            keep = complete and unsent is None and not response.will_close
        except (OSError, HTTPException):
            if attempt.stopped:
                raise Stopped from None
            raise
        finally:
            if not keep or not self._keep(connection):
                connection.close()
        return answer

    def _take(self) -> HTTPConnection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection, since = self._idle.pop()
            poll = select.poll()
            poll.register(connection.sock, select.POLLIN)
            # Readable without a request: the peer has closed it, or says what nobody asked for.
            if time.monotonic() - since < IDLE_SECONDS and not poll.poll(0):
                return connection
            connection.close()

    def _keep(self, connection: HTTPConnection) -> bool:
        with self._lock:
            if not self._closed:
                self._idle.append((connection, time.monotonic()))
            return not self._closed


def _send(sock: socket.socket, head: bytes, body: memoryview) -> OSError | None:
    """Send a request. An error is returned, not raised: a store that refuses a body early may have said why."""
    try:
        if len(body) <= _TOGETHER:
            sock.sendall(head + bytes(body))
        else:
            sock.sendall(head)
            sock.sendall(body)
    except OSError as error:
        return error
    return None


def _read(response: HTTPResponse, into: memoryview | None, whole: bool) -> tuple[Answer, bool]:
    """The answer, and whether its end was seen."""
    answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()})
    if into is not None and response.status < 300:
        while answer.filled < len(into):
            count = response.readinto(into[answer.filled :])
            if not count:
                break
            answer.filled += count
        if response.length and answer.filled < len(into):
            raise IncompleteRead(b"", response.length)
        complete = not response.length if response.length is not None else not response.read(1)
    elif whole and response.status < 300:
        answer.body = response.read()
        complete = True
    else:
        answer.body = response.read(_DOCUMENT)
        complete = not response.length if response.length is not None else not response.read(1)
        if response.length and len(answer.body) < _DOCUMENT:
            raise IncompleteRead(b"", response.length)
    return answer, complete
