"""The logic of a comparison: turns, medians, ratios in pairs, targets, and the JSON that other programs read."""

import json

import pytest

from mover.bench import report
from mover.bench.compare import Goal, Side, Work, compare, ratios
from mover.bench.measure import Sample

GB = 10**9


def sample(seconds, cpu, *, rss=50_000_000, start=0.0, start_cpu=0.0):
    return Sample(seconds, cpu, rss, GB, 0, start, start_cpu)


def scripted(name, samples, log, goal=None):
    rest = iter(samples)

    def run():
        log.append(name)
        return next(rest)

    return Side(name, run, goal)


def quiet(_line):
    pass


def test_sides_take_turns_and_the_warm_up_does_not_count():
    log = []
    ours = scripted("mover", [sample(100, 100), *[sample(1, 1)] * 3], log)
    first = scripted("a", [sample(100, 100), *[sample(2, 2)] * 3], log)
    second = scripted("b", [sample(100, 100), *[sample(4, 1)] * 3], log)
    rows = compare(Work("w", ours, [first, second]), pairs=3, warm_up=1, say=quiet)
    assert log == ["mover", "a", "b"] * 4
    assert [row["peer"]["name"] for row in rows] == ["a", "b"]
    assert [row["mover"]["gb_per_s"] for row in rows] == [1.0, 1.0]
    assert [row["ratio"]["gb_per_s"] for row in rows] == [2.0, 4.0]
    assert [row["ratio"]["cpu"] for row in rows] == [0.5, 1.0]


def test_a_ratio_is_taken_in_each_round():
    """The machine slows down threefold for one round: both sides suffer, the ratio does not."""
    ours = [sample(1, 1), sample(3, 3), sample(1, 1)]
    theirs = [sample(2, 4), sample(6, 12), sample(2, 4)]
    assert ratios(ours, theirs, steady=False) == ([2.0, 2.0, 2.0], [0.25, 0.25, 0.25])


def test_medians_and_their_range():
    log = []
    ours = scripted("mover", [sample(1, 1), sample(2, 5), sample(10, 2)], log)
    theirs = scripted("p", [sample(1, 1)] * 3, log)
    (row,) = compare(Work("w", ours, [theirs]), pairs=3, warm_up=0, say=quiet)
    assert row["mover"]["gb_per_s"] == 0.5
    assert row["mover"]["gb_per_s_range"] == [0.1, 1.0]
    assert row["mover"]["cpu_s_per_gb"] == 2.0
    assert row["ratio"]["cpu_range"] == [1.0, 5.0]


@pytest.mark.parametrize(
    ("goal", "text", "met"),
    [
        (Goal(rate=2.0), "GB/s >= 2x", True),
        (Goal(rate=2.1), "GB/s >= 2.1x", False),
        (Goal(cost=0.5), "CPU <= 0.5x", True),
        (Goal(rate=1.0, cost=0.4), "GB/s >= 1x, CPU <= 0.4x", False),
        (None, "", None),
    ],
)
def test_targets(goal, text, met):
    log = []
    ours, theirs = scripted("mover", [sample(1, 1)], log), scripted("p", [sample(2, 2)], log, goal)
    (row,) = compare(Work("w", ours, [theirs]), pairs=1, warm_up=0, say=quiet)
    assert (row["target"], row["met"]) == (text, met)


def test_start_up_is_counted_unless_the_work_is_a_loop():
    ours, theirs = [sample(2, 3, start=1, start_cpu=1)], [sample(1, 1)]
    log = []

    def rows(steady):
        work = Work("w", scripted("mover", ours, log), [scripted("p", theirs, log)], steady=steady)
        return compare(work, pairs=1, warm_up=0, say=quiet)[0]

    whole = rows(False)
    assert whole["mover"]["gb_per_s"] == 0.5
    assert whole["ratio"]["cpu"] == 3.0
    assert whole["ratio"]["without_start_up"] == {"gb_per_s": 1.0, "cpu": 2.0}
    assert whole["mover"]["without_start_up"] == {"gb_per_s": 1.0, "cpu_s_per_gb": 2.0}
    assert "without_start_up" not in whole["peer"]
    loop = rows(True)
    assert loop["mover"]["gb_per_s"] == 1.0
    assert loop["ratio"]["cpu"] == 2.0


def test_the_keys_that_other_programs_read_with_and_without_a_peer(tmp_path):
    log = []
    (row,) = compare(
        Work("pipe | line", scripted("mover", [sample(1, 1)], log), [scripted("zstd | dd", [sample(2, 2)], log)]),
        pairs=1,
        warm_up=0,
        say=quiet,
    )
    (alone,) = compare(Work("w", scripted("mover", [sample(1, 1)], log), []), pairs=1, warm_up=0, say=quiet)
    for found in (row, alone):
        assert set(found) >= {"work", "mover", "peer", "ratio", "target", "met"}
        assert set(found["mover"]) >= {"gb_per_s", "cpu_s_per_gb", "rss_mb"}
    assert set(row["peer"]) >= {"name", "gb_per_s", "cpu_s_per_gb", "rss_mb"}
    assert set(row["ratio"]) >= {"gb_per_s", "cpu"}
    assert alone["peer"] is alone["ratio"] is alone["met"] is None

    from mover.bench.machine import describe

    result = {"machine": describe({"sh": ["/bin/sh", "-c", "echo sh 1.0"]}), "rows": [row, alone]}
    assert result["machine"]["peers"] == {"sh": "sh 1.0"}
    written = report.write(result, tmp_path / "out", "suite")
    assert json.loads(written[0].read_text()) == json.loads(json.dumps(result))
    table = [line for line in written[1].read_text().splitlines() if line.startswith("|")]
    assert len(table) == 4
    # A bar inside a cell would be a column too many.
    assert {len(line.replace("\\|", "").split("|")) for line in table} == {len(report.COLUMNS) + 2}
