"""The documents say what is there: every path they name exists, every command they show is one the program has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "FORMAT.md", "CHANGELOG.md"]
# Names of files at a backup destination or in an engine's directory, which look like paths of ours.
_FOREIGN = ("store/", "clog/", "data/", "sstable/", "slog/", "redo/", "run/", "/", "~", "backup_")


def named_paths(text: str) -> set[str]:
    """Paths in backquotes that end in a source suffix or a slash."""
    quoted = re.findall(r"`([A-Za-z0-9_./-]+)`", text)
    return {name for name in quoted if re.search(r"^[a-z_.].*/.*(\.py|\.pyx|\.md)$|^[a-z_].*/$", name)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_a_document_names_exists(document: str) -> None:
    missing = [
        name
        for name in sorted(named_paths((ROOT / document).read_text()))
        if not any((base / name).exists() for base in (ROOT, ROOT / "mover")) and not name.startswith(_FOREIGN)
    ]
    assert missing == []


def test_the_check_sees_a_missing_path() -> None:
    assert named_paths("see `mover/nowhere.py` and `mover/kernel/`") == {"mover/nowhere.py", "mover/kernel/"}


def test_every_command_the_readme_shows_exists() -> None:
    from mover.cli.app import mover  # the click group every command hangs on

    shown = re.findall(
        r"^\s*(?:\.venv/bin/)?mover ((?:--?\S+(?: \S+)? )*)([a-z]+)", (ROOT / "README.md").read_text(), re.M
    )
    names = {command for _, command in shown}
    assert names
    assert names <= set(mover.commands)
