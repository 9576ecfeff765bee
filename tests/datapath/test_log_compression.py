"""What of the log is compressed: all of it in quiet times, a share when much comes, and nothing that does not pay."""

import random

import pytest

from mover.datapath.compression import Compression
from mover.datapath.log_compression import _REST, _SHARE, LogCompression
from mover.media.archive import unpack_payload

SECOND = 1_000_000_000
RANDOM = random.Random(1).randbytes(1 << 20)
TEXT = b"".join(b"row %d of a table that is written all day;" % n for n in range(30_000))


@pytest.fixture
def cpu(monkeypatch):
    """Compressing takes a twentieth of a second of a processor, whatever the machine."""
    spent = [0.0]

    def thread_time():
        spent[0] += 0.05
        return spent[0]

    monkeypatch.setattr("mover.datapath.log_compression.time.thread_time", thread_time)


def compressed(log, payload, seconds, each):
    """How many of the payloads of a time are compressed when one comes every ``each`` seconds."""
    done = 0
    for n in range(int(seconds / each)):
        packed = log.apply(memoryview(payload), int((n + 1) * each * SECOND))
        if packed is not None:
            assert unpack_payload(packed) == payload
            done += 1
    return done


@pytest.mark.parametrize("spelling", ["zstd:1", "zstd:3", "lz4"])
def test_what_is_asked_for_is_done(spelling):
    log = LogCompression(Compression.parse(spelling))
    assert compressed(log, TEXT, 20, 0.01) == 2000 if spelling == "lz4" else compressed(log, TEXT, 1, 0.01) == 100
    assert log.apply(memoryview(RANDOM), 1) is None  # it would not be smaller


def test_none_is_none():
    assert LogCompression(Compression.parse("none")).apply(memoryview(TEXT), 1) is None


def test_quiet_log_is_compressed_and_fast_log_in_part(cpu):
    assert compressed(LogCompression(Compression.parse("auto")), TEXT, 200, 5) == 40
    # A hundred times as much: 0.07 processors over 200 s less what all else takes, and what was saved before.
    rest = 4000 * len(TEXT) * _REST
    expected = (200 * _SHARE - rest) / 0.05
    assert expected <= compressed(LogCompression(Compression.parse("auto")), TEXT, 200, 0.05) <= expected + 5
    # And so much that all else takes it all.
    assert compressed(LogCompression(Compression.parse("auto")), TEXT, 20, 0.01) <= 3


def test_log_that_was_compressed_already_is_left_alone():
    assert compressed(LogCompression(Compression.parse("auto")), RANDOM, 10, 1) == 0


def test_time_that_jumps_gives_no_more_than_a_burst(cpu):
    log = LogCompression(Compression.parse("auto"))
    compressed(log, TEXT, 1, 0.01)
    assert sum(log.apply(memoryview(TEXT), 10**18) is not None for _ in range(50)) <= 6
    assert log.apply(memoryview(TEXT), 5) is None  # and back
