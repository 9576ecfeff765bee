"""Memory for whole files of some 64 MiB, one after the other."""

from __future__ import annotations

import mmap

_HUGE_PAGE = 2 << 20


class FileMemory:
    """Page-aligned memory that is kept from one file to the next: fresh memory costs more than reading into it does."""

    def __init__(self) -> None:
        self._view = memoryview(b"")

    def room(self, size: int) -> memoryview:
        """``size`` bytes, writable; what was given out before has the same memory, unless it was smaller."""
        if len(self._view) < size:
            # Private: shared memory, mmap's default, gets no huge pages.
            arena = mmap.mmap(-1, -(-size // _HUGE_PAGE) * _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            try:
                arena.madvise(mmap.MADV_HUGEPAGE)
            except (OSError, AttributeError):  # they only save page faults
                pass
            self._view = memoryview(arena)
        return self._view[:size]
