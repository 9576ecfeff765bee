"""What copies have proven about the files at a destination: records there, read at the beginning and added to.

A record names files that are there already; it is written after them. A copy that was killed loses the last few
seconds of its records, and the next one compares those files instead of copying them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable

from mover.errors import IntegrityError
from mover.events import Emit, Notice
from mover.media.copy_record import Copied, decode_copies, encode_copies
from mover.media.layout import COPY_RECORD_DIR
from mover.target.base import Target

_ROWS = 1024
_SECONDS = 5.0
_READERS = 8


class CopyJournal:
    """The records of one destination.

    Args:
        target: the destination. emit: told of records that do not decode.
    """

    def __init__(self, target: Target, emit: Emit) -> None:
        self._target = target
        self._emit = emit
        self._run = secrets.token_hex(8)
        self._number = 0
        self._rows: dict[str, list[Copied]] = {}  # by incarnation directory
        self._count = 0
        self._flushed = time.monotonic()
        self._lock = asyncio.Lock()
        self.known: dict[str, Copied] = {}

    async def load(self, incarnation_dirs: Iterable[str]) -> None:
        """Read what earlier copies left. The newest record of a file counts."""
        slots = asyncio.Semaphore(_READERS)

        async def one(path: str) -> tuple[Copied, ...]:
            async with slots:
                data = await self._target.get(path)
            try:
                return decode_copies(data)
            except IntegrityError as exc:
                self._emit(Notice("copy", f"{path}: {exc.message}", "what it names is compared instead"))
                return ()

        for directory in incarnation_dirs:
            found = [info async for info in self._target.list(f"{directory}/{COPY_RECORD_DIR}/")]
            found.sort(key=lambda info: (info.modified_us, int(info.path.rpartition(".")[2])))
            for rows in await asyncio.gather(*(one(info.path) for info in found)):
                self.known.update((row.path, row) for row in rows)

    async def add(self, incarnation_dir: str, row: Copied) -> None:
        """A file is there and proven. Durable with the next :meth:`flush`, which comes by itself after some seconds."""
        self.known[row.path] = row
        self._rows.setdefault(incarnation_dir, []).append(row)
        self._count += 1
        if self._count >= _ROWS or time.monotonic() - self._flushed > _SECONDS:
            await self.flush()

    async def flush(self) -> None:
        """Write what was added. Idempotent."""
        async with self._lock:
            rows, self._rows, self._count = self._rows, {}, 0
            self._flushed = time.monotonic()
            for directory, table in rows.items():
                self._number += 1
                path = f"{directory}/{COPY_RECORD_DIR}/{self._run}.{self._number}"
                await self._target.put(path, encode_copies(table), if_absent=True)
