"""Blocks read inside the window, kept until the window is proven: memory first, then an unlinked temporary file.

A slow destination must not stretch the window, so nothing read there goes to it before the window is closed.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from mover.errors import SourceError
from mover.store.base import BlockIdentity


class Spool:
    """An ordered collection of blocks, at most ``memory`` bytes of it in memory. All calls block; :meth:`add` is
    thread-safe.

    Args:
        directory: where the overflow file goes; it has no name there, so nothing is left after a crash.
    """

    def __init__(self, directory: Path, memory: int) -> None:
        self._directory = directory
        self._memory = memory
        self._held = 0
        self._lock = threading.Lock()
        self._blocks: list[tuple[BlockIdentity, bytes, bytes | int]] = []  # digest; content, or its offset in the file
        self._fd: int | None = None
        self._file_end = 0

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def bytes_held(self) -> int:
        """Content bytes, in memory and on disk."""
        return self._held + self._file_end

    def add(self, identity: BlockIdentity, digest: bytes, data: memoryview) -> None:
        """Keep a copy of ``data``.

        Raises:
            SourceError: the temporary file cannot be written.
        """
        with self._lock:
            if self._held + len(data) <= self._memory:
                self._held += len(data)
                kept: bytes | int = bytes(data)
            else:
                kept = self._file_end
                self._file_end += len(data)
                self._write(data, kept)
            self._blocks.append((identity, digest, kept))

    def _write(self, data: memoryview, offset: int) -> None:
        try:
            if self._fd is None:
                self._fd = _nameless_file(self._directory)
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], offset + written)
        except OSError as error:
            raise SourceError(
                f"cannot spool changed blocks in {self._directory}: {error.strerror}",
                hint="name a directory with free space as the scratch directory",
                path=str(self._directory),
            ) from None

    def __iter__(self) -> Iterator[BlockIdentity]:
        return (identity for identity, _, _ in self._blocks)

    def read_into(self, position: int, buffer: memoryview) -> tuple[BlockIdentity, bytes]:
        """Copy the block at ``position`` to the start of ``buffer``; its identity and digest."""
        identity, digest, kept = self._blocks[position]
        if isinstance(kept, bytes):
            buffer[: len(kept)] = kept
            return identity, digest
        done = 0
        while done < identity.used_length:
            count = os.preadv(self._fd or 0, [buffer[done : identity.used_length]], kept + done)
            if count == 0:
                raise SourceError(f"the spool file in {self._directory} is shorter than what was written to it")
            done += count
        return identity, digest

    def close(self) -> None:
        """Forget everything. Idempotent."""
        self._blocks.clear()
        self._held = self._file_end = 0
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _nameless_file(directory: Path) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        # Overlay and network filesystems may not know O_TMPFILE.
        fd, name = tempfile.mkstemp(dir=directory, prefix="mover-spool-")
        os.unlink(name)
        return fd
