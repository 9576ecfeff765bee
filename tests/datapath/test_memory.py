"""--memory is a ceiling: a process that packs stays below it, whatever it is asked to do at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mover.bench import worker
from mover.bench.data import write_block_file

MIB = 1 << 20


# Its own word: what wait4 reports survives exec, so it would count the memory of the tests.
_JOB = """
import sys
from mover.bench.worker import main
status = main(*sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
sys.exit(status)
"""


def peak_of(job: dict[str, object], dest: str, tmp_path: Path) -> int:
    """The largest resident size in bytes of a process that does ``job``."""
    report = tmp_path / "report.json"
    ran = subprocess.run(
        [sys.executable, "-c", _JOB, str(report), json.dumps(job)],
        env={**os.environ, worker.DEST: dest},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert json.loads(report.read_text())["bytes_in"] > 0
    return int(ran.stdout) * 1024


@pytest.mark.parametrize("memory", [24 * MIB, 64 * MIB])
@pytest.mark.parametrize(("kind", "compression"), [("rows", "zstd:1"), ("engine", "auto")])
def test_the_worst_concurrency_stays_below_the_ceiling(
    tmp_path: Path, memory: int, kind: str, compression: str
) -> None:
    source = tmp_path / "blocks"
    write_block_file(source, kind, 100)
    job = {"do": "pack", "source": str(source), "memory": memory, "workers": 8, "concurrency": 64}
    job |= {"part_size": 8 * MIB, "compression": compression}
    dest = tmp_path / "dest"
    assert peak_of(job, dest.as_uri(), tmp_path) < 1.3 * memory + 100 * MIB
