"""Every suite of `mover bench` from end to end as a process, tiny: rows of the shape that is promised, sane numbers."""

import json
import os
import subprocess
import sys

import pytest

BLOCK = 2 << 20


@pytest.fixture
def bench(tmp_path):
    """Run `mover bench SUITE` with one pair; its rows. Nothing may be left behind."""
    scratch, dest = tmp_path / "scratch", tmp_path / "dest"
    scratch.mkdir()
    dest.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MOVER_")}
    environment |= {"MOVER_CONFIG": os.devnull, "MOVER_SCRATCH_DIR": str(scratch)}

    def run(suite, *arguments):
        argv = [sys.executable, "-m", "mover", "bench", suite, "--pairs", "1", "--warm-up", "0", "--quiet", "--json"]
        if suite not in ("kernel", "start"):
            argv += ["--dest", f"file://{dest}"]
        done = subprocess.run(
            [*argv, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert list(dest.iterdir()) == list(scratch.iterdir()) == []
        report = json.loads(done.stdout)
        assert report["machine"]["processors"] > 0
        for row in report["rows"]:
            sane(row)
        return report["rows"]

    return run


def sane(row):
    assert {"work", "mover", "peer", "ratio", "target", "met"} <= set(row)
    sides = [row["mover"]] + ([row["peer"]] if row["peer"] else [])
    for side in sides:
        assert side["name"]
        assert side["gb_per_s"] > 0
        assert side["seconds"] > 0
        assert side["cpu_s_per_gb"] >= 0
        assert side["bytes_in"] > 0
    if row["peer"]:
        assert row["ratio"]["gb_per_s"] > 0
        assert row["ratio"]["cpu"] > 0
    assert (row["met"] is None) == (not row["target"])


def test_start(bench):
    rows = bench("start")
    assert [row["work"] for row in rows] == ["start-up: mover --version", "start-up: mover show sets"]
    assert all(0.01 < row["mover"]["seconds"] < 60 for row in rows)


def test_archive(bench):
    rows = bench("archive", "--rate", "4", "--seconds", "1.5")
    assert len(rows) == 2  # rows, and what does not compress
    for row in rows:
        assert 6_000_000 <= row["mover"]["bytes_in"] < 6_100_000
        assert 0 < row["lag"]["p50"] <= row["lag"]["p99"] <= row["lag"]["max"]
        assert row["core"] > 0
        assert row["target"] == ""
    squeezed, whole = (row["mover"]["bytes_out"] / row["mover"]["bytes_in"] for row in rows)
    assert squeezed < 0.7 < 0.9 < whole < 1.1


def test_the_archive_has_its_goal_at_60_mb(bench):
    row, _ = bench("archive", "--rate", "60", "--seconds", "0.2")
    assert "lag p99 < 1 s" in row["target"]


def test_restore_validate_and_incrementals(bench):
    rows = bench("restore", "--size", "8MiB")
    by_work = {row["work"].split(",")[0].split(" of ")[0]: row for row in rows}
    assert set(by_work) == {"restore", "validate", "incremental"}
    assert by_work["restore"]["mover"]["bytes_in"] == 4 * BLOCK
    assert by_work["restore"]["peer"]["name"].startswith("dd")
    if by_work["validate"]["peer"]:  # xxhsum is installed
        assert by_work["validate"]["peer"]["bytes_in"] == by_work["validate"]["mover"]["bytes_in"] > 4 * BLOCK
    incremental = by_work["incremental"]
    assert incremental["mover"]["bytes_in"] == incremental["peer"]["bytes_in"] == 4 * BLOCK
    # One block of four was changed and read; the full read them all.
    assert 0.2 < incremental["ratio"]["bytes_read"] < 0.9
    assert "bytes read <= 3%" in incremental["target"]


def test_whole_tools(bench):
    rows = bench("peers", "--size", "4MiB", "--kind", "rows")
    assert rows
    for row in rows:
        assert row["mover"]["name"] == "mover backup full"
        assert row["mover"]["bytes_in"] == 2 * BLOCK
        assert row["peer"]["bytes_in"] == 2 * BLOCK


def test_blocks_of_a_real_engine(bench):
    pytest.importorskip("pylibseekdb")
    rows = bench("pipeline", "--size", "16MiB", "--kind", "seekdb")
    for row in rows:
        assert row["work"].startswith("seekdb blocks, auto")
        assert row["mover"]["bytes_in"] == row["peer"]["bytes_in"] == 8 * BLOCK
        assert row["mover"]["bytes_out"] < 8.1 * BLOCK
