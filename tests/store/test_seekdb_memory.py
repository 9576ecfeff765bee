"""What a capture keeps grows with the store by bytes per block, and stays beside the pool of slabs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import large_store
import pytest

from mover.kernel.palf import PALF_FILE_BYTES

BLOCKS = 32_768  # 64 GiB
MEMORY = 32 << 20
PER_BLOCK = 800  # bytes: a header as it was scanned, and its number in a set or two


@pytest.mark.parametrize("known", [False, True])
def test_a_store_of_64_gib_is_captured_in_little_memory(tmp_path: Path, known: bool) -> None:
    large_store.make(tmp_path / "store", BLOCKS)
    done = subprocess.run(
        [sys.executable, large_store.__file__, tmp_path / "store", str(MEMORY), *["known"] * known],
        check=True,
        capture_output=True,
    )
    facts = json.loads(done.stdout)
    unchanged = BLOCKS // 2 if known else 0
    assert (facts["captured"], facts["unchanged"]) == (BLOCKS - unchanged, unchanged)
    assert facts["read"] == BLOCKS * 4096 + (BLOCKS - unchanged) * 8192
    # One file of the log is in memory while its end is looked for.
    assert facts["after"] - facts["before"] < PALF_FILE_BYTES + BLOCKS * PER_BLOCK
