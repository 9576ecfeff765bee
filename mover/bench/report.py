"""What was measured, for people: a Markdown table and, where matplotlib is installed, a plot."""

from __future__ import annotations

import json
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


MEASURED = ("work", "measured", "RSS MB", "target", "met")


def tables(rows: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[str, ...], list[list[str]]]]:
    """Columns and lines of each table: what was compared, then what is held to limits of its own."""
    compared = [cells(row) for row in rows if "measured" not in row]
    measured = [
        [row["work"], row["measured"], str(row["mover"]["rss_mb"]), row["target"] or "-", _met(row)]
        for row in rows
        if "measured" in row
    ]
    return [(columns, lines) for columns, lines in ((COLUMNS, compared), (MEASURED, measured)) if lines]


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row under ``COLUMNS``: medians, and the range of each ratio."""
    ours, peer, ratio = row["mover"], row["peer"], row["ratio"]
    if peer is None:
        numbers = [_number(ours["gb_per_s"]), "-", "-", _number(ours["cpu_s_per_gb"]), "-", "-", "-"]
        return [row["work"], "-", *numbers, str(ours["rss_mb"]), "-", "-", _met(row)]
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
        _met(row),
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
        if _plot(report["rows"], directory / f"{name}.png"):
            written.append(directory / f"{name}.png")
    except OSError as error:
        raise MoverError(f"can not write the report to {directory}: {error.strerror}") from error
    return written


def _plot(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Ratios to the peers as bars, 1 being the peer; False when matplotlib is not installed or there is no peer."""
    compared = [row for row in rows if row["ratio"] is not None]
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError:
        return False
    if not compared:
        return False
    figure = Figure(figsize=(11, 1.2 + 0.45 * len(compared)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    labels = [f"{row['work']}\nvs {row['peer']['name']}" for row in compared]
    for axes, key, title in (
        (left, "gb_per_s", "GB/s, mover / peer (more is better)"),
        (right, "cpu", "CPU-s/GB, mover / peer (less is better)"),
    ):
        values = [row["ratio"][key] for row in compared]
        ranges = [row["ratio"][f"{key}_range"] for row in compared]
        spread = [
            [value - low for value, (low, _) in zip(values, ranges, strict=True)],
            [high - value for value, (_, high) in zip(values, ranges, strict=True)],
        ]
        axes.barh(range(len(compared)), values, xerr=spread, color="#4c72b0", ecolor="#999999")
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_title(title, fontsize=9)
    left.set_yticks(range(len(compared)), labels, fontsize=7)
    left.invert_yaxis()
    figure.savefig(path, dpi=120)
    return True


def _met(row: Mapping[str, Any]) -> str:
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
