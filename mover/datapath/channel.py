"""Messages between the processes of one backup: pickled values with a length in front, over a socket pair.

Both ends are mover's own, started for this backup; nothing else can reach the socket, so unpickling is safe here.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("<I")


class Channel:
    """One end. ``send`` may be called from the event loop only; what is sent arrives in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Channel:
        """Take over one end of a socket pair."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, *message: Any) -> None:
        """Queue a message. Messages to a peer that is gone are dropped: :meth:`receive` says that it is."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        if not self._writer.is_closing():
            self._writer.write(_LENGTH.pack(len(data)))
            self._writer.write(data)

    async def receive(self) -> tuple[Any, ...] | None:
        """The next message, or None when the peer is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            message: tuple[Any, ...] = pickle.loads(await self._reader.readexactly(length))  # noqa: S301
            return message
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def aclose(self) -> None:
        """Close. What was sent is delivered first if the peer still reads. Idempotent."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass
