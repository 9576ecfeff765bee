"""Whether a piece of log is compressed: what pays, inside what archiving may take from the database it runs beside.

``auto`` tries zstd where a sample of the log says that it pays, for as long as archiving altogether takes no more than
six hundredths of a processor per second of log. Time is the log's own (its SCNs), so catching up stores the same as
following did: what writes 10 MB/s has all of its log compressed, what writes 60 MB/s a part of it.
"""

from __future__ import annotations

import time

from mover.datapath.compression import Compression
from mover.kernel import zstd_compress
from mover.media.archive import chunk
from mover.media.header import Compressor

_SHARE = 0.06  # processor seconds per second of log, for all of archiving
_REST = 0.95e-9  # processor seconds per byte of log for reading, verifying, framing and writing it: measured
_SAVED = 0.1  # what quiet times leave for busy ones, in processor seconds
_LONGEST_STEP = 10.0  # seconds: SCNs may jump
_SAMPLE = 32 << 10
_SMALL = 8 * _SAMPLE  # is tried without a sample
_SAMPLE_PAYS = 0.9
_PAYS = 0.95


class LogCompression:
    """Compresses payloads of one archiver, one at a time."""

    def __init__(self, compression: Compression) -> None:
        self._compression = compression
        self._auto = compression.mode == "auto"
        self._kind = {"none": Compressor.NONE, "lz4": Compressor.LZ4}.get(compression.mode, Compressor.ZSTD_1_3_8)
        self._credit = _SAVED
        self._scn = 0

    def apply(self, payload: memoryview, scn: int) -> bytes | None:
        """A CC chunk of ``payload``, or None when it is to be stored as it is. Releases the GIL for the long part.

        Args:
            scn: of the end of the payload, ns.
        """
        if not self._auto:
            return chunk(payload, self._kind, level=self._compression.level)
        if self._scn:
            passed = min(max((scn - self._scn) / 1e9, 0.0), _LONGEST_STEP)
            self._credit = min(_SAVED, self._credit + passed * _SHARE)
        self._scn = max(scn, self._scn)
        self._credit = max(-_SAVED, self._credit - len(payload) * _REST)
        if self._credit <= 0:
            return None
        began = time.thread_time()
        packed = chunk(payload, self._kind, level=self._compression.level) if _promising(payload) else None
        self._credit -= time.thread_time() - began
        return packed if packed is not None and len(packed) <= len(payload) * _PAYS else None


def _promising(payload: memoryview) -> bool:
    if len(payload) <= _SMALL:
        return True
    middle = len(payload) // 2
    return len(zstd_compress(payload[middle : middle + _SAMPLE], 1)) <= _SAMPLE * _SAMPLE_PAYS
