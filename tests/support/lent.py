"""Memory that is lent to a destination, page aligned as the data path's, and spoiled the moment it comes back."""

import mmap


class LentPart:
    """A part that counts its releases. Whoever reads it after the first one finds other bytes."""

    def __init__(self, content, *, shift=0):
        size = len(content) + shift
        self.memory = memoryview(mmap.mmap(-1, size or 1))
        self.data = self.memory[shift:size]
        self.data[:] = content
        self.releases = 0

    def release(self):
        self.releases += 1
        self.data[:] = b"\xee" * len(self.data)
