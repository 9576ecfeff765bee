"""One table out of many reports: ``python bench/collect.py DIRECTORY`` prints it as Markdown."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mover.bench.report import markdown


def collect(directory: Path) -> str:
    """All reports below ``directory`` as one; the facts of the machine are those of the first, peers of all."""
    reports = sorted((json.loads(path.read_text()) for path in directory.rglob("*.json")), key=_moment)
    if not reports:
        raise SystemExit(f"no reports below {directory}")
    machine = dict(reports[0]["machine"])
    machine["peers"] = {name: said for report in reports for name, said in report["machine"]["peers"].items()}
    return markdown({"machine": machine, "rows": [row for report in reports for row in report["rows"]]})


def _moment(report: dict[str, dict[str, str]]) -> str:
    return report["machine"]["date"]


if __name__ == "__main__":
    print(collect(Path(sys.argv[1])), end="")
