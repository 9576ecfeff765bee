"""The rules of the house that a machine can hold: layers, sizes, names, lint and types."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mover"

# Imports run from a line to itself and to the lines above it. Packages on one line do not know each other, but for the
# first and the last: the ground is one piece, and so is what people see.
LAYERS = [
    {
        "errors",
        "events",
        "clock",
        "config",
        "config_option",
        "config_secret",
        "config_values",
        "settled",
        "kernel",
        "_native",
    },
    {"encryption"},
    {"media"},
    {"store", "target"},
    {"repository"},
    {"datapath"},
    {"executor", "recovery"},
    {"rootservice"},
    {"cli", "demo", "bench", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

MAX_LINES = 450
PRINTING = {"cli", "demo", "__main__"}


@cache
def sources() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def part(path: Path) -> str:
    """The layer's name for a file: ``kernel`` for mover/kernel/palf.py, ``errors`` for mover/errors.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(path: Path, tree: ast.Module) -> dict[str, int]:
    """First name below ``mover`` of everything ``path`` imports, anywhere in it, with the line."""
    found: dict[str, int] = {}
    package = ["mover", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            modules = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            names = module.split(".")
            if names[0] == "mover" and len(names) > 1 and not names[1].startswith("__version"):
                found.setdefault(names[1], node.lineno)
    return found


def test_every_part_has_its_layer():
    assert {part(path) for path in sources()} - {"__init__"} <= set(LEVEL)


def test_imports_run_one_way():
    wrong = []
    for path, tree in sources().items():
        here = part(path)
        for there, line in imported_parts(path, tree).items():
            mine, theirs = LEVEL.get(here, -1), LEVEL.get(there, len(LAYERS))
            if here != there and (theirs > mine or (theirs == mine and 0 < mine < len(LAYERS) - 1)):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} imports {there}")
    assert wrong == []


def test_the_import_check_sees_all_forms():
    tree = ast.parse(
        "import mover.cli.app\nfrom mover import media\nfrom ..target import base\ndef f():\n from . import x"
    )
    found = imported_parts(PACKAGE / "store" / "seekdb" / "blocks.py", tree)
    assert found == {"cli": 1, "media": 2, "store": 3}
    assert imported_parts(PACKAGE / "store" / "base.py", ast.parse("from ..target import base")) == {"target": 1}


def test_only_the_command_line_prints():
    wrong = []
    for path, tree in sources().items():
        if part(path) in PRINTING:
            continue
        for node in ast.walk(tree):
            prints = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            writes = (
                isinstance(node, ast.Attribute)
                and node.attr in ("stdout", "stderr")
                and isinstance(node.value, ast.Name)
                and node.value.id == "sys"
            )
            if prints or writes:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


def test_files_are_of_a_size_to_be_read():
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {path: lines for path, lines in long.items() if lines > MAX_LINES} == {}


def test_no_file_is_named_for_everything():
    assert [path for path in sources() if path.stem in ("utils", "util", "common", "helpers", "misc")] == []


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["ruff-check", "ruff-format", "mypy"],
)
def test_lint_and_types(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
