"""How a run ends that no error ends: exit statuses, and a signal. Imports nothing, so that starting stays short."""

from __future__ import annotations

from mover.errors import MoverError

DONE, USAGE, PARTLY, INTEGRITY = 0, 2, 3, 5
SIGNAL = 128  # plus the number of the signal


class Interrupted(Exception):
    """A signal ended the job. ``error`` is what the job said about it, if anything."""

    def __init__(self, number: int, error: MoverError | None = None) -> None:
        super().__init__(number)
        self.signal = number
        self.error = error
