"""The documents of the benchmark: written from reports, README.md with the numbers of bench/RESULTS.md."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import collect  # noqa: E402


def side(name, rate=1.0):
    return {"name": name, "gb_per_s": rate, "cpu_s_per_gb": 2.0, "rss_mb": 10, "seconds": 1.0, "bytes_in": 1}


def report(date, *rows):
    machine = {
        "date": date, "processor": "p", "processors": 2, "memory_bytes": 1 << 30, "system": "Linux", "mover": "1",
        "load_average": [0.1, 0, 0], "python": "3", "native": True, "packages": {"x": "1"}, "peers": {"dd": "dd 9"},
    }  # fmt: skip
    return {"machine": machine, "rows": list(rows)}


def compared(work, target="", met=None, **more):
    ratio = {"gb_per_s": 0.5, "cpu": 0.25, "gb_per_s_range": [0.4, 0.6], "cpu_range": [0.2, 0.3], "time": 2.0} | more
    return {
        "work": work, "mover": side("mover", 0.5), "peer": side("a | b"), "ratio": ratio, "target": target, "met": met,
    }  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A project with a README and results that were written before, and two reports."""
    reports, root = tmp_path / "reports", tmp_path / "root"
    (root / "bench").mkdir(parents=True)
    (root / "README.md").write_text(f"# before\n{collect.BEGIN}{collect.END}\nbehind\n")
    (root / "bench" / "RESULTS.md").write_text(f"old\n{collect.NOTES}\n\n## By hand\n")
    measured = {
        "work": "start-up", "mover": side("mover"), "peer": None, "ratio": None, "target": "< 1 s", "met": True,
        "measured": "0.5 s",
    }  # fmt: skip
    rows = [
        compared("to S3", "GB/s >= 2x, CPU <= 0.35x", False),
        compared("incremental", "time <= 5%, bytes read <= 3%", False, time=0.07, bytes_read=0.02),
        compared("no goal"),
    ]
    for name, content in (("start", report("2026-01-02", measured)), ("pipeline", report("2026-01-01", *rows))):
        (reports / name).mkdir(parents=True)
        (reports / name / "suite.json").write_text(json.dumps(content))
        (reports / name / "sink.txt").write_text("mover-sink: 3 requests, 2.000 GB, 0.50 CPU seconds\n")
    return reports, root


def test_both_documents_have_the_goals(place):
    reports, root = place
    for _ in range(2):  # the second time what is there is replaced
        collect.write_documents(reports, root)
    results, readme = (root / "bench" / "RESULTS.md").read_text(), (root / "README.md").read_text()
    goals = [line for line in collect.between(readme).splitlines() if line][2:]
    assert goals == [
        "| to S3 | a \\| b | GB/s >= 2x, CPU <= 0.35x | 0.50x, CPU 0.25x | NO |",
        "| incremental | a \\| b | time <= 5%, bytes read <= 3% | time 7.0%, bytes read 2.0% | NO |",
        "| start-up | - | < 1 s | 0.5 s | yes |",
    ]
    assert collect.between(results) == collect.between(readme)
    assert readme.startswith("# before\n")
    assert readme.endswith("\nbehind\n")
    assert results.endswith(f"{collect.NOTES}\n\n## By hand\n")
    assert "2026-01-01 to 2026-01-02" in results
    assert "the sink took 4.0 GB at 0.25 CPU-s/GB of its own" in results
    assert results.count("| no goal |") == 1


def test_a_document_without_a_place_for_the_goals_is_left_alone(place):
    reports, root = place
    (root / "README.md").write_text("nothing here\n")
    before = (root / "bench" / "RESULTS.md").read_text()
    with pytest.raises(SystemExit, match="goals"):
        collect.write_documents(reports, root)
    assert (root / "bench" / "RESULTS.md").read_text() == before


def test_the_readme_has_the_numbers_of_the_results():
    results, readme = (ROOT / "bench" / "RESULTS.md").read_text(), (ROOT / "README.md").read_text()
    assert collect.between(results) == collect.between(readme)
    assert collect.NOTES in results


def test_the_steps_of_a_whole_run():
    """Every suite is in it, and a step's name begins with what BENCH_SUITES may say."""
    import run

    steps = run.steps(1 << 30, 5, "8")
    assert len({step.name for step in steps}) == len(steps)
    suites = {step.arguments[0] for step in steps}
    assert suites == {"kernel", "target", "pipeline", "archive", "restore", "peers", "start"}
    assert all((step.place == "") == (step.arguments[0] in ("kernel", "start")) for step in steps)
