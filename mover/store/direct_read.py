"""Reading files past the page cache: what an engine writes with O_DIRECT is not in it, and need not get there.

Where the file system has no O_DIRECT, the pages are dropped after the read.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

_PAGE = 4096


class DirectReadFile:
    """A file that is read past the page cache where the file system can; thread-safe but for :meth:`close`."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDONLY | os.O_CLOEXEC
        self.direct = True
        try:
            self.fd = os.open(path, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.fd = os.open(path, flags)
            self.direct = False
        found = os.fstat(self.fd)
        self._identity = (found.st_dev, found.st_ino)

    def is_at(self, path: Path) -> bool:
        found = path.stat()
        return (found.st_dev, found.st_ino) == self._identity

    def fill(self, view: memoryview, begin: int) -> None:
        """Read from ``begin`` on; offset, length and memory are whole pages. Zeros behind the end of the file."""
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self.fd, [view[done:]], begin + done)
            except OSError as error:
                if error.errno != errno.EINVAL or not self.direct:
                    raise
                # A device with sectors larger than our pages.
                fcntl.fcntl(self.fd, fcntl.F_SETFL, fcntl.fcntl(self.fd, fcntl.F_GETFL) & ~os.O_DIRECT)
                self.direct = False
                continue
            done += count
            if count == 0 or done % _PAGE:  # only the end of the file is inside a page
                view[done:] = bytes(len(view) - done)
                break
        if not self.direct:
            os.posix_fadvise(self.fd, begin, len(view), os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
