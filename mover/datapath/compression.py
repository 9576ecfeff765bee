"""Whether and how a block is compressed.

Spellings: ``none`` (what OceanBase 3.1.0 writes), ``zstd:<level>``, ``lz4``, ``auto``, ``auto:<min>..<max>``.
``auto`` stores a block as it is unless compressing it pays: blocks the engine compressed already come out at 0.93
to 0.98, and spending CPU on them only slows the backup down.
"""

from __future__ import annotations

from dataclasses import dataclass

from mover.config_values import compression_levels
from mover.errors import ConfigError
from mover.kernel import Order
from mover.media.header import Compressor
from mover.store.base import BlockIdentity

KEEP_PERMILLE = 950  # auto: what is left above this share is not worth decompressing at every restore
# What zstd has in store, in steps that differ: between two of them neither speed nor ratio changes much.
LADDER = (-7, -5, -3, -1, 1, 2, 3, 5, 7, 9, 12, 15, 19)


@dataclass(frozen=True, slots=True)
class Compression:
    """A parsed ``--compression``; ``level`` and ``top`` are the range of ``auto``, equal otherwise."""

    mode: str  # "none" "zstd" "lz4" "auto"
    level: int = 1
    top: int = 1

    @classmethod
    def parse(cls, text: str) -> Compression:
        """Raises ConfigError for anything but the documented spellings."""
        try:
            return cls(*compression_levels(text))
        except ValueError as error:
            raise ConfigError(
                f"compression {error}",
                hint="use none, lz4, zstd:<level> (1 to 19, or -1 to -7 for speed), auto, or auto:<min>..<max>",
            ) from None

    @property
    def label(self) -> str:
        """What the set records."""
        return f"{self.mode}:{self.level}" if self.mode == "zstd" else self.mode

    @property
    def readable_by_oceanbase(self) -> bool:
        """True when the container bytes are what 3.1.0 writes."""
        return self.mode == "none"

    @property
    def compressor(self) -> Compressor:
        """What compressed frames say."""
        if self.mode == "none":
            return Compressor.NONE
        return Compressor.LZ4 if self.mode == "lz4" else Compressor.ZSTD_1_3_8

    @property
    def keep_permille(self) -> int:
        """Compressing pays when it leaves less than so many thousandths."""
        return KEEP_PERMILLE if self.mode == "auto" else 1000


class Chooser:
    """Decides for each block of a PG what to try, and learns from what came of it.

    ``auto`` begins with what the engine says of a block (an sstable block names its compressor), and follows what
    happened to the blocks of the same kind lately: where compressing keeps paying it is done at once, where a sample
    decides it is taken, and where it never pays only one block in ``_LOOK_AGAIN`` is sampled at all.
    """

    _LOOK_AGAIN = 16
    _MEMORY = 8  # blocks that an opinion is made of

    def __init__(self, compression: Compression) -> None:
        self.compression = compression
        self.level = compression.level
        """The zstd level now; :meth:`step` moves it inside the range of ``auto``."""
        self._success: dict[tuple[int, bool | None], float] = {}
        self._passed = 0

    def order(self, identity: BlockIdentity) -> Order:
        """What to do with a block."""
        if self.compression.mode != "auto":
            return Order.KEEP if self.compression.mode == "none" else Order.COMPRESS
        expected = self._expected(identity)
        if expected > 0.75:
            return Order.COMPRESS
        if expected > 0.25:
            return Order.SAMPLE
        self._passed += 1
        return Order.KEEP if self._passed % self._LOOK_AGAIN else Order.SAMPLE

    def learn(self, identity: BlockIdentity, order: Order, compressor: int) -> None:
        """What became of a block."""
        if order != Order.KEEP:
            paid = float(compressor != Compressor.NONE)
            expected = self._expected(identity)
            self._success[_sort(identity)] = expected + (paid - expected) / self._MEMORY

    def step(self, direction: int) -> None:
        """One level up (the destination is what is waited for) or down (the processors are), inside the range."""
        compression = self.compression
        levels = sorted({compression.level, compression.top, *LADDER})
        levels = [level for level in levels if compression.level <= level <= compression.top]
        position = levels.index(self.level) + direction
        self.level = levels[min(max(position, 0), len(levels) - 1)]

    def _expected(self, identity: BlockIdentity) -> float:
        known = self._success.get(_sort(identity))
        if known is not None:
            return known
        return {True: 0.0, False: 1.0, None: 0.5}[identity.engine_compressed]


def _sort(identity: BlockIdentity) -> tuple[int, bool | None]:
    return identity.kind, identity.engine_compressed
