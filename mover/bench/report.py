"""What was measured, for people: a Markdown table and, where matplotlib is installed, a plot."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mover.errors import MoverError

COLUMNS = (
    "work",
    "peer",
    "GB/s",
    "peer's",
    "ratio",
    "CPU-s/GB",
    "peer's",
    "ratio",
    "without start-up",
    "RSS MB",
    "peer's",
    "target",
    "met",
)


_CPU_TITLE = "CPU-s/GB, mover / peer: left of the line is cheaper"
_GOALS = {"gb_per_s": r"GB/s >= ([\d.]+)x", "cpu": r"CPU <= ([\d.]+)x"}
MEASURED = ("work", "measured", "RSS MB", "target", "met")


def tables(rows: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[str, ...], list[list[str]]]]:
    """Columns and lines of each table: what was compared, then what is held to limits of its own."""
    compared = [cells(row) for row in rows if "measured" not in row]
    measured = [
        [row["work"], row["measured"], str(row["mover"]["rss_mb"]), row["target"] or "-", met(row)]
        for row in rows
        if "measured" in row
    ]
    return [(columns, lines) for columns, lines in ((COLUMNS, compared), (MEASURED, measured)) if lines]


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row under ``COLUMNS``: medians, and the range of each ratio."""
    ours, peer, ratio = row["mover"], row["peer"], row["ratio"]
    if peer is None:
        numbers = [_number(ours["gb_per_s"]), "-", "-", _number(ours["cpu_s_per_gb"]), "-", "-", "-"]
        return [row["work"], "-", *numbers, str(ours["rss_mb"]), "-", "-", met(row)]
    return [
        row["work"],
        peer["name"],
        _number(ours["gb_per_s"]),
        _number(peer["gb_per_s"]),
        _ratio(ratio["gb_per_s"], ratio["gb_per_s_range"]),
        _number(ours["cpu_s_per_gb"]),
        _number(peer["cpu_s_per_gb"]),
        _ratio(ratio["cpu"], ratio["cpu_range"]),
        _steady(ratio),
        str(ours["rss_mb"]),
        str(peer["rss_mb"]),
        row["target"] or "-",
        met(row),
    ]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a Markdown page: the machine, then the table."""
    machine = report["machine"]
    facts = [
        f"* {machine['date']}; {machine['processors']} processors ({machine['processor']}), "
        f"{machine['memory_bytes'] / 1e9:.0f} GB of memory, {machine['system']}; load average before the run "
        f"{', '.join(str(load) for load in machine['load_average'])}",
        f"* mover {machine['mover']}, Python {machine['python']}, "
        + ("native kernel, " if machine["native"] else "PURE PYTHON kernel, ")
        + ", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
    ]
    if machine["peers"]:
        facts.append("* peers: " + "; ".join(f"{name}: {said}" for name, said in machine["peers"].items()))
    return "\n".join([*facts, "", *(table(columns, lines) for columns, lines in tables(report["rows"]))])


def table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, with an empty line behind it; columns of numbers are aligned to the right."""
    numeric = [all(line[index][:1].isdigit() or line[index] == "-" for line in lines) for index in range(len(columns))]
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join([_line(columns), _line(rule), *map(_line, lines), "", ""])


def write(report: Mapping[str, Any], directory: Path, name: str) -> list[Path]:
    """Write ``<name>.json``, ``<name>.md`` and, with matplotlib, ``<name>.png``. Returns what was written.

    Raises:
        MoverError: the directory can not be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        written = [directory / f"{name}.json", directory / f"{name}.md"]
        written[0].write_text(json.dumps(report, indent=1) + "\n")
        written[1].write_text(markdown(report))
        if plot(report["rows"], directory / f"{name}.png"):
            written.append(directory / f"{name}.png")
    except OSError as error:
        raise MoverError(f"can not write the report to {directory}: {error.strerror}") from error
    return written


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw the ratios to the peers, 1 being the peer: a mark for the median, a line for the range, a bar for the goal.

    Returns:
        False when matplotlib is not installed or there is nothing to draw.
    """
    compared = [row for row in rows if row["ratio"] is not None]
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError:
        return False
    if not compared:
        return False
    figure = Figure(figsize=(13, 1.4 + 0.3 * len(compared)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    labels = [f"{row['work']}  /  {row['peer']['name']}" for row in compared]
    sides = (("gb_per_s", "GB/s, mover / peer: right of the line is faster", 1), ("cpu", _CPU_TITLE, -1))
    for axis, (key, title, better) in zip(axes, sides, strict=True):
        for at, row in enumerate(compared):
            value, (low, high) = row["ratio"][key], row["ratio"][f"{key}_range"]
            color = "#2a7f3f" if (value - 1) * better >= 0 else "#b03a2e"
            axis.plot([low, high], [at, at], color=color, alpha=0.45, linewidth=4, solid_capstyle="round")
            axis.plot([value], [at], "o", color=color, markersize=6)
            goal = re.search(_GOALS[key], row["target"])
            if goal:
                axis.plot([float(goal[1])], [at], "|", color="black", markersize=13, markeredgewidth=2)
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _at: f"{value:g}x")
        axis.xaxis.set_minor_formatter(lambda value, _at: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
        axis.tick_params(axis="x", which="both", labelsize=8)
        axis.grid(axis="x", which="major", alpha=0.4)
        axis.set_title(title, fontsize=10)
    axes[0].set_yticks(range(len(compared)), labels, fontsize=8)
    axes[0].set_ylim(len(compared) - 0.5, -0.5)
    figure.supxlabel("dot: median of the pairs; line: their range; black bar: goal", fontsize=9)
    figure.savefig(path, dpi=110)
    return True


def met(row: Mapping[str, Any]) -> str:
    """Whether a row reached its goal, in a word."""
    return "-" if row["met"] is None else "yes" if row["met"] else "NO"


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _steady(ratio: Mapping[str, Any]) -> str:
    """Both ratios when the start of the processes is left out, where it is known."""
    known = ratio.get("without_start_up")
    return f"{known['gb_per_s']:.3g}, {known['cpu']:.3g}" if known else "-"


def _ratio(value: float, spread: Sequence[float]) -> str:
    return f"{value:.3g} ({spread[0]:.2g}-{spread[1]:.2g})"
