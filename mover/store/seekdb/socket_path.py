"""Unix socket paths that fit into the 107 bytes an address may have."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_LIMIT = 107
_directories: dict[str, int] = {}
_lock = threading.Lock()


def short_socket_path(path: Path) -> str:
    """A name for the socket ``path`` that ``connect`` accepts, from this process only when the real one is too long.

    A long path is reached through ``/proc/self/fd/<directory>``; that descriptor is opened once per directory and
    stays open for the life of the process, because a connection may be made again at any time.
    """
    text = str(path)
    if len(os.fsencode(text)) <= _LIMIT:
        return text
    parent = str(path.parent)
    with _lock:
        if parent not in _directories:
            _directories[parent] = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{_directories[parent]}/{path.name}"
