"""The data that is measured with: valid for the engine's checks, of the stated ratios, the same each time."""

from array import array

import pytest

from mover.bench.data import KINDS, blocks, write_block_file
from mover.bench.log_data import ENDS, palf_log, write_log_files
from mover.datapath.compression import KEEP_PERMILLE
from mover.errors import ConfigError
from mover.kernel import (
    PALF_START_ACCUM,
    Order,
    frame_room,
    macroblock_check,
    pack_frames,
    palf_block_header_parse,
    palf_walk,
    zstd_compress,
)
from mover.kernel.macroblock import KIND_SSTABLE_DATA, MACROBLOCK_BYTES
from mover.kernel.palf import PALF_FILE_BYTES, PALF_FILE_HEADER
from mover.media.header import Compressor


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("incompressible", 1.0, 1.01), ("engine", 0.94, 0.96), ("rows", 0.36, 0.44)]
)
def test_ratios(kind, low, high):
    block = next(blocks(kind, 1))
    assert low <= len(zstd_compress(block, 1)) / len(block) <= high


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_valid_distinct_and_repeatable(kind):
    two = list(blocks(kind, 2))
    assert two == list(blocks(kind, 2))
    assert two[0] != two[1]
    for block in two:
        header = macroblock_check(block)
        assert (len(block), header.kind, header.ok) == (MACROBLOCK_BYTES, KIND_SSTABLE_DATA, True)
        assert header.used_length == MACROBLOCK_BYTES


def test_auto_keeps_what_the_engine_compressed():
    kept = {}
    for kind in KINDS:
        out = bytearray(frame_room(MACROBLOCK_BYTES))
        work = [(b"", next(blocks(kind, 1)), Order.SAMPLE)]
        [frame] = pack_frames(out, 0, work, b"", compressor=Compressor.ZSTD_1_3_8, level=1, keep_permille=KEEP_PERMILLE)
        kept[kind] = frame.compressor == Compressor.NONE
    assert kept == {"incompressible": True, "engine": True, "rows": False}


def test_an_unknown_kind(tmp_path):
    with pytest.raises(ConfigError, match="no blocks of kind 'x'"):
        write_block_file(tmp_path / "b", "x", 1)


def test_the_log_verifies_from_its_start():
    log = palf_log(300_000)
    walk = palf_walk(log, 0, accum=PALF_START_ACCUM, log_id=1)
    assert walk.end_lsn == len(log) >= 300_000
    damaged = bytearray(log)
    damaged[-1] ^= 1
    assert palf_walk(bytes(damaged), 0).end_lsn < len(log)


def test_log_files_are_what_an_engine_leaves(tmp_path):
    """Across the end of a file: padding fills it, the next one has its header, and the chain goes on."""
    (tmp_path / "log").mkdir()
    end = write_log_files(tmp_path / "log", PALF_FILE_BYTES + (1 << 20))
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["0", "1"]
    accum, log_id, reached = PALF_START_ACCUM, 1, 0
    for number in (0, 1):
        content = (tmp_path / "log" / str(number)).read_bytes()
        assert palf_block_header_parse(content[:48]).min_lsn == number * PALF_FILE_BYTES
        walk = palf_walk(content[PALF_FILE_HEADER:], reached, accum=accum, log_id=log_id)
        accum, log_id, reached = walk.accum, walk.last_log_id + 1, walk.end_lsn
    assert reached == end
    ends = array("Q", (tmp_path / ENDS).read_bytes())
    assert (ends[-2], ends[-1]) == (end, walk.max_scn)
    assert list(ends[0::2]) == sorted(set(ends[0::2]))
