"""The documents out of the reports: ``python bench/collect.py REPORTS ROOT`` writes bench/RESULTS.md and its plot, and
the table of goals in README.md, which is the one of RESULTS.md.

What stands behind ``NOTES`` in RESULTS.md was written by people and stays.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mover.bench.report import met, plot, table, tables

BEGIN, END = "<!-- goals: written by bench/collect.py -->", "<!-- end of goals -->"
NOTES = "<!-- what follows was written by hand -->"
_HEAD = """# Results

What `mover bench` measured, side by side in turn (A B A B), medians with the range of the ratios in brackets. Both
sides are processes of their own, the start of Python included; wall time, CPU seconds and memory are the system's, for
all processes of a side, and not for a server. "Without start-up" repeats the two ratios (GB/s, CPU) without what a side
spent before its work began, where it says so. The kernel's loops and the incrementals are without start-up altogether.

Input was made in memory; "file" is a directory on a disk, "S3" the sink of `bench/sink.c`, which throws bodies away,
over plain HTTP on loopback, or a SeaweedFS server where the step is called so. To repeat: `make bench-peers bench`.
"""
_PLOT = "![GB/s and CPU seconds per GB, mover beside each peer](results.png)\n"


def load(directory: Path) -> list[tuple[str, dict[str, Any]]]:
    """Name and content of every report below ``directory``, oldest first."""
    found = [(path.parent.name, json.loads(path.read_text())) for path in directory.glob("*/*.json")]
    if not found:
        raise SystemExit(f"no reports below {directory}")
    return sorted(found, key=lambda entry: str(entry[1]["machine"]["date"]))


def goals(reports: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The table of what mover is to reach, and whether it did."""
    lines = [
        [row["work"], row["peer"]["name"] if row["peer"] else "-", row["target"], _measured(row), met(row)]
        for _, report in reports
        for row in report["rows"]
        if row["target"]
    ]
    return table(("work", "beside", "goal", "measured", "met"), lines)


def _measured(row: Mapping[str, Any]) -> str:
    if "measured" in row:
        return str(row["measured"])
    ratio, target = row["ratio"], row["target"]
    parts = [f"{ratio['gb_per_s']:.2f}x"] if "GB/s" in target else []
    parts += [f"CPU {ratio['cpu']:.2f}x"] if "CPU" in target else []
    parts += [f"time {ratio['time']:.1%}"] if "time" in target else []
    parts += [f"bytes read {ratio['bytes_read']:.1%}"] if "bytes read" in target else []
    return ", ".join(parts)


def results(reports: Sequence[tuple[str, Mapping[str, Any]]], sink: str, notes: str) -> str:
    """RESULTS.md."""
    machines = [report["machine"] for _, report in reports]
    first, last = machines[0], machines[-1]
    peers = {name: said for machine in machines for name, said in machine["peers"].items()}
    loads = [machine["load_average"][0] for machine in machines]
    packages = ", ".join(f"{name} {version}" for name, version in last["packages"].items())
    kernel = "native kernel" if last["native"] else "PURE PYTHON kernel"
    facts = [
        f"* {first['date']} to {last['date']}; {last['processors']} processors ({last['processor']}), "
        f"{last['memory_bytes'] / 1e9:.0f} GB of memory, {last['system']}; load average before the steps "
        f"{min(loads):g} to {max(loads):g}",
        f"* mover {last['mover']}, Python {last['python']}, {kernel}, {packages}",
        "* peers: " + "; ".join(f"{name}: {said.strip('* ')}" for name, said in sorted(peers.items())),
        *([f"* {sink}"] if sink else []),
    ]
    body = []
    for name, report in reports:
        body.append(f"### {name}\n")
        body += [table(columns, lines) for columns, lines in tables(report["rows"])]
    goal_part = f"## Goals\n\n{BEGIN}\n\n{goals(reports)}{END}\n"
    return "\n".join([_HEAD, *facts, "", goal_part, _PLOT, "## Everything\n", *body]).rstrip() + f"\n\n{NOTES}\n{notes}"


def _sink(reports: Path) -> str:
    """What the sink cost in all steps together."""
    said = [re.search(r"([\d.]+) GB, ([\d.]+) CPU seconds", path.read_text()) for path in reports.glob("*/sink.txt")]
    pairs = [(float(found[1]), float(found[2])) for found in said if found]
    took, cost = (sum(numbers) for numbers in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
    return f"the sink took {took:.1f} GB at {cost / took:.2f} CPU-s/GB of its own" if took else ""


def between(text: str) -> str:
    """The table of goals in a document."""
    found = re.search(re.escape(BEGIN) + "(.*)" + re.escape(END), text, re.DOTALL)
    if found is None:
        raise SystemExit(f"no {BEGIN} ... {END}")
    return found[1]


def with_goals(text: str, goals: str) -> str:
    """A document with another table of goals."""
    between(text)  # there is a place for it
    head, rest = text.split(BEGIN, 1)
    return head + BEGIN + goals + END + rest.split(END, 1)[1]


def write_documents(reports: Path, root: Path) -> None:
    """Write RESULTS.md, its plot and README.md's table. Nothing is written when a marker is missing."""
    found = load(reports)
    path, readme = root / "bench" / "RESULTS.md", root / "README.md"
    notes = path.read_text().partition(NOTES)[2].lstrip("\n") if path.exists() else ""
    text = results(found, _sink(reports), f"\n{notes}" if notes else "")
    front = with_goals(readme.read_text(), between(text))
    path.write_text(text)
    readme.write_text(front)
    rows = [row for name, report in found for row in report["rows"] if name != "kernel"]
    plot(rows, path.with_name("results.png"))


if __name__ == "__main__":
    write_documents(Path(sys.argv[1]), Path(sys.argv[2]))
