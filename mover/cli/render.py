"""Tables on stdout: views, facts about one thing, findings. Everything shown was redacted and made printable."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mover.cli.invocation import Invocation
from mover.cli.output import print_json, say
from mover.cli.units import bytes_text, printable, ratio_text, span_text

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 250

# The columns of each view that a person looks for; --json has all of them.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "sets": (
        "backup_set_id",
        "backup_type",
        "status",
        "tenant_id",
        "min_restore_time",
        "macro_block_count",
        "reused_macro_block_count",
        "input_bytes",
        "output_bytes",
        "elapsed_seconds",
    ),
    "rounds": (
        "round",
        "tenant_id",
        "status",
        "min_first_time",
        "max_next_time",
        "checkpoint_lsn",
        "lag_seconds",
        "input_bytes",
        "output_bytes",
    ),
    "windows": ("tenant_id", "from", "until", "from_scn", "until_scn", "sets"),
    "holes": ("tenant_id", "from", "until", "reason"),
    "violations": ("path", "offset", "kind", "message", "tenant_id", "pg", "from_log_id", "until_log_id"),
}
_EMPTY = {
    "sets": "no backup sets",
    "rounds": "no archive rounds",
    "windows": "nothing can be restored",
    "progress": "no backup runs",
    "running": "no backup runs",
}
BACKUP_FACTS = (*_COLUMNS["sets"], "restorable", "compression", "tuning")
RESTORE_FACTS = (
    "target",
    "set",
    "round",
    "until",
    "until_scn",
    "macro_block_count",
    "bytes_to_read",
    "log_disk_size",
    "elapsed_seconds",
)
_TITLES = {"backup_set_id": "set", "tenant_id": "tenant", "macro_block_count": "blocks"} | {
    "reused_macro_block_count": "reused",
    "input_bytes": "in",
    "output_bytes": "stored",
    "elapsed_seconds": "took",
    "lag_seconds": "lag",
}


def show_view(invocation: Invocation, name: str, view: Mapping[str, Any]) -> None:
    """A view: one table per list in it, or the JSON object."""
    if invocation.json:
        print_json(view, invocation.redactor)
        return
    for key, rows in view.items():
        if not isinstance(rows, Sequence) or isinstance(rows, str):
            continue
        if not rows:
            if key != "holes":
                say(_EMPTY.get(key, f"no {key}"))
            continue
        known = [column for column in _COLUMNS.get(key, ()) if any(column in row for row in rows)]
        columns = known or list(dict.fromkeys(column for row in rows for column in row))
        table = [[cell_text(column, row.get(column)) for column in columns] for row in rows]
        show_table(invocation, key if key != name else "", [_title(column) for column in columns], table)


def show_facts(invocation: Invocation, facts: Mapping[str, Any], only: Sequence[str] = ()) -> None:
    """One thing as a table of two columns; nested objects as dotted names, lists of objects as tables.

    Args:
        only: the facts that a person looks for, in their order; everything when there is none of them.
    """
    rows, tables = [], {}
    wanted = {key: facts[key] for key in only if key in facts} or facts
    for key, value in wanted.items():
        if isinstance(value, Mapping):
            rows += [[f"{key}.{inner}", cell_text(inner, item)] for inner, item in value.items()]
        elif isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            tables[key] = value
        elif value is not None:
            rows.append([_title(key), cell_text(key, value)])
    if rows:
        show_table(invocation, "", ["", ""], rows)
    if tables:
        show_view(invocation, "", tables)


def show_validation(invocation: Invocation, report: Mapping[str, Any]) -> None:
    """The violations as a table, then the sentence that counts."""
    violations = report["violations"]
    if violations:
        show_view(invocation, "violations", {"violations": violations})
    if violations and (report.get("windows") or report.get("holes")):
        # Of a tree that OceanBase wrote: what is left in spite of the damage.
        say("what can be restored all the same:")
        show_view(invocation, "windows", {"windows": report["windows"], "holes": report["holes"]})
    checked = f"checked {report['checked_files']} files, {bytes_text(report['checked_bytes'])}"
    say(f"{checked}: {'everything is as it must be' if report['ok'] else f'{len(violations)} violations'}")
    for what in report.get("not_decrypted", ()):
        say(f"not decrypted, digests and structure only: {what}", invocation.redactor)


def show_table(invocation: Invocation, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with its title; numbers to the right. In a pipe no line is wrapped."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def safe(text: str) -> Text:
        return Text(invocation.redactor(printable(text)))

    has_header = any(columns)
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE, show_header=has_header, pad_edge=False)
    for index, column in enumerate(columns):
        cells = [row[index] for row in rows]
        numeric = has_header and all(re.fullmatch(r"-|-?[\d.]+( ?[A-Za-z/]+)?|[\d:]+", cell) for cell in cells)
        table.add_column(safe(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(safe(cell) for cell in row))
    console().print(table)


def console() -> Console:
    """stdout as rich sees it, without markup: names may contain brackets."""
    from rich.console import Console

    class Stdout(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - rich calls this while it handles BrokenPipeError, and would exit by itself

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Stdout(width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def cell_text(name: str, value: Any) -> str:
    """A value as people read it, judged by the name of its column."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and "bytes" in name.split("_"):
        return bytes_text(value)
    if isinstance(value, int | float) and name.endswith("_seconds"):
        return span_text(value)
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _title(column: str) -> str:
    return _TITLES.get(column, column.replace("_", " "))


def show_report(invocation: Invocation, report: Mapping[str, Any]) -> None:
    """The end of the demo: jobs, archive, tables, and the result in one line."""
    jobs = []
    for facts in report["sets"]:
        kind = "full" if facts["backup_type"] == "D" else "incremental"
        jobs.append([f"{kind}, set {facts['backup_set_id']}", *_volume(facts)])
    archive, restore = report["archive"], report["restore"]
    jobs.append(["archived log", "-", "-", *_volume(archive)[2:-1], "-"])
    stored = cell_text("disk_bytes", restore.get("disk_bytes"))
    jobs.append(["restore", "-", "-", "-", stored, "-", cell_text("elapsed_seconds", restore.get("elapsed_seconds"))])
    show_table(invocation, "", ["", "blocks", "reused", "read", "written", "ratio", "took"], jobs)
    rows = [
        [row["table"], str(row["rows"]), f"{row['checksum']:x}", "identical" if row["identical"] else "DIFFERS"]
        for row in report["tables"]
    ]
    show_table(invocation, "", ["table", "rows", "checksum", "restored"], rows)
    facts = [
        ["archive lag", f"p50 {_lag(archive, 50)}, p99 {_lag(archive, 99)}"],
        ["restored to", f"{report['moment'].get('time', '-')} (SCN {report['moment'].get('scn', '-')})"],
        ["boot of the restored store", cell_text("boot_seconds", restore.get("boot_seconds"))],
        ["destination", report["dest"]],
        ["kept in", report["directory"] or "nothing: use --dir to keep it"],
        ["whole story", span_text(report["elapsed_seconds"])],
    ]
    show_table(invocation, "", ["", ""], facts)
    for difference in report["differences"]:
        say(f"differs: {difference}", invocation.redactor)
    say("result: every table is identical" if report["ok"] else "result: NOT what it was")


def _volume(facts: Mapping[str, Any]) -> list[str]:
    """Blocks, reused, read, written, ratio, took."""
    read, written = int(facts.get("input_bytes") or 0), int(facts.get("output_bytes") or 0)
    return [
        str(facts.get("macro_block_count", "-")),
        str(facts.get("reused_macro_block_count", "-")),
        bytes_text(read),
        bytes_text(written),
        ratio_text(read, written),
        cell_text("elapsed_seconds", facts.get("elapsed_seconds")),
    ]


def _lag(archive: Mapping[str, Any], percentile: int) -> str:
    return cell_text("lag_seconds", archive.get(f"lag_p{percentile}_seconds"))
