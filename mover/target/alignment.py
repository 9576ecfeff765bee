"""What O_DIRECT asks of memory, lengths and places in a file."""

from __future__ import annotations

import ctypes
import errno

ALIGNMENT = 4096
"""Enough for every sector size in use, and for the page size of the memory."""

NO_DIRECT = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
"""What opening with O_DIRECT says where a file system has none."""


def direct_length(view: memoryview, offset: int) -> int:
    """How many bytes from the beginning of ``view`` may move to or from ``offset`` with O_DIRECT; 0 = none of them."""
    whole = len(view) - len(view) % ALIGNMENT
    # Only writable memory tells its address; the buffers of the data path are writable.
    if not whole or view.readonly or offset % ALIGNMENT:
        return 0
    return 0 if ctypes.addressof(ctypes.c_char.from_buffer(view)) % ALIGNMENT else whole
