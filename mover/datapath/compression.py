"""Whether and how a payload is compressed.

Spellings: ``none`` (what OceanBase 3.1.0 writes), ``zstd:<level>``, ``lz4``, ``auto``, ``auto:<min>..<max>``.
``auto`` stores a block as it is unless compressing it pays: blocks the engine compressed already come out at 0.93
to 0.98, and spending CPU on them only slows the backup down.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mover.errors import ConfigError
from mover.kernel import lz4_compress, zstd_compress
from mover.media.header import Compressor

WORTH_IT = 0.95  # stored / raw above this: keep the raw bytes
SAMPLE = 64 << 10
SAMPLE_WORTH_IT = 0.92
SMALL = 4 * SAMPLE


@dataclass(frozen=True, slots=True)
class Compression:
    """A parsed ``--compression``."""

    mode: str  # "none" "zstd" "lz4" "auto"
    level: int = 1

    @classmethod
    def parse(cls, text: str) -> Compression:
        """Raises ConfigError for anything but the documented spellings."""
        if text in {"none", "lz4"}:
            return cls(text)
        if text == "auto":
            return cls("auto", 1)
        if found := re.fullmatch(r"(zstd|auto):(-?\d+)(?:\.\.(-?\d+))?", text):
            mode, level, top = found.groups()
            levels = [int(level)] if top is None else [int(level), int(top)]
            ranged = top is not None
            if ranged == (mode == "auto") and levels == sorted(levels) and all(-50 <= n <= 19 and n for n in levels):
                return cls(mode, levels[0])
        raise ConfigError(
            f"compression {text!r} is not known",
            hint="use none, lz4, zstd:<level> (1 to 19, or negative for speed), auto, or auto:<min>..<max>",
        )

    @property
    def label(self) -> str:
        """What the set records."""
        return f"{self.mode}:{self.level}" if self.mode == "zstd" else self.mode

    @property
    def readable_by_oceanbase(self) -> bool:
        """True when the container bytes are what 3.1.0 writes."""
        return self.mode == "none"

    def promising(self, block: memoryview) -> bool:
        """False when a sample says that compressing the block would be wasted work. Only ``auto`` samples."""
        if self.mode != "auto" or len(block) <= SMALL:
            return self.mode != "none"
        # One slice from the middle: heads of blocks are headers and compress better than what follows.
        middle = len(block) // 2
        return len(zstd_compress(block[middle : middle + SAMPLE], 1)) <= SAMPLE * SAMPLE_WORTH_IT

    def apply(self, payload: bytes) -> tuple[Compressor, bytes]:
        """The compressor and the bytes to store; the payload itself when compressing does not pay.

        Releases the GIL while compressing; thread safe.
        """
        if self.mode == "none":
            return Compressor.NONE, payload
        if self.mode == "lz4":
            stored, kind = lz4_compress(payload), Compressor.LZ4
        else:
            stored, kind = zstd_compress(payload, self.level), Compressor.ZSTD_1_3_8
        if len(stored) >= len(payload) * (WORTH_IT if self.mode == "auto" else 1.0):
            return Compressor.NONE, payload
        return kind, stored
