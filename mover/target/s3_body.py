"""A request body that is sent straight from the part buffer.

Given bytes, botocore wraps them in a BytesIO and aiohttp reads that back in pieces through an executor, each piece a
fresh copy: nearly half of the CPU of an upload. An object that is a file to botocore (it measures, signs and rewinds
it) and a Payload to aiohttp (it sends it) avoids both, with the public interfaces of the two.
"""

from __future__ import annotations

import os
from typing import Any

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

_SLICE = 256 << 10


class PartBody(Payload):
    """``view`` as a body. The memory must not change until the request has ended.

    An event loop may hold slices of it a moment longer when a request is given up before its end. What such a dying
    connection still sends can not become an object: Content-MD5 went ahead of it.
    """

    _autoclose = True  # nothing to close

    def __init__(self, view: memoryview) -> None:
        super().__init__(view)
        self._view = view
        self._size = len(view)
        self._position = 0

    def __len__(self) -> int:
        return len(self._view)

    def __bool__(self) -> bool:
        return True

    def read(self, size: int = -1) -> memoryview | bytes:
        """As a file, for whoever signs the content."""
        end = len(self._view) if size is None or size < 0 else min(len(self._view), self._position + size)
        piece = self._view[self._position : end]
        self._position = end
        return piece or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._view)}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self._view).decode(encoding, errors)

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002
        return bytes(self._view)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        end = len(self._view) if content_length is None else min(content_length, len(self._view))
        for at in range(0, end, _SLICE):
            await writer.write(self._view[at : min(at + _SLICE, end)])

    def __deepcopy__(self, memo: dict[int, Any]) -> PartBody:
        return self
