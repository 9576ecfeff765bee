"""Backups that OceanBase made, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tree31 import TreeSpec, build, damage

from mover.cli import app
from mover.config import OPTIONS

SPEC = TreeSpec(layout="3.1.5", seed=2, tenants=2, pgs=2, blocks=3, block_size=6 << 10)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mover(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    for option in OPTIONS:
        monkeypatch.delenv(option.env, raising=False)
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    monkeypatch.setenv("MOVER_CONFIG", str(empty))
    monkeypatch.setenv("MOVER_STATE_DIR", str(tmp_path / "state"))

    def run(*arguments: object) -> tuple[int, str, str]:
        status = app.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def answer(ran: tuple[int, str, str], status: int = 0) -> dict[str, Any]:
    assert ran[0] == status, ran
    found: dict[str, Any] = json.loads(ran[1])
    return found


def test_a_tree_is_listed_checked_and_restored(mover: Run, tmp_path: Path) -> None:
    build(SPEC).write(tmp_path / "dest")
    dest = (tmp_path / "dest").as_uri()
    (cluster,) = answer(mover("inspect", dest, "--tree", "--json"))["clusters"]
    assert (cluster["cluster_name"], cluster["cluster_id"]) == ("ob31", 7)
    _, tenant, _ = cluster["tenants"]
    assert [found["backup_set_id"] for found in tenant["sets"]] == [1, 2, 4]
    assert [[piece["piece"] for piece in found["pieces"]] for found in tenant["rounds"]] == [[1, 2], [3, 4]]
    assert len(tenant["pgs"]) == 2
    status, out, _ = mover("inspect", dest, "--tree")
    assert status == 0
    assert "cluster ob31/7, tenant 1001: 2 PGs" in out
    assert answer(mover("validate", "--dest", dest, "--json"))["violations"] == []
    windows = answer(mover("show", "windows", "--dest", dest, "--json"))["windows"]
    assert [(window["tenant_id"], window["sets"]) for window in windows] == [(1001, [1, 2, 4]), (1002, [1, 2, 4])]
    cluster_of = ("--cluster-name", "ob31", "--cluster-id", 7)
    sets = answer(mover("show", "sets", "--dest", dest, *cluster_of, "--json"))["sets"]
    assert [(row["tenant_id"], row["backup_set_id"], row["status"]) for row in sets if row["tenant_id"] == 1001] == [
        (1001, 1, "COMPLETED"),
        (1001, 2, "COMPLETED"),
        (1001, 3, "FAILED"),
        (1001, 4, "COMPLETED"),
    ]
    target = tmp_path / "out"
    error = answer(mover("restore", "--dest", dest, "--target", target, "--json"), 4)["error"]
    assert "ob31/7/1001, ob31/7/1002" in error["message"]
    until = windows[0]["from"]
    found = answer(mover("restore", "--dest", dest, "--target", target, "--tenant", 1001, "--until", until, "--json"))
    assert (found["set"], found["pg_count"]) == (1, 2)
    assert (target / "restored.json").exists()


def test_damage_is_named_with_what_is_left(mover: Run, tmp_path: Path) -> None:
    damaged = damage(build(SPEC), "archive_data.missing", seed=4)
    damaged.tree.write(tmp_path / "dest")
    dest = (tmp_path / "dest").as_uri()
    report = answer(mover("validate", "--dest", dest, "--json"), 5)
    (path,) = (finding.path for finding in damaged.findings)
    (found,) = (one for one in report["violations"] if one["path"] == path)
    assert {"tenant_id", "pg", "round", "from_log_id", "until_log_id"} <= found.keys()
    assert found["from_log_id"] <= found["until_log_id"]
    assert any(path.rpartition("/")[2] in hole["reason"] for hole in report["holes"])
    status, out, _ = mover("validate", "--dest", dest)
    assert status == 5
    assert "what can be restored all the same:" in out
    records = [json.loads(line) for line in mover("inspect", dest, "--records", "--json")[1].splitlines()]
    assert {"piece", "archive_key", "log_entry", "macro_block", "group"} <= {record["record"] for record in records}


def test_a_copy_is_planned_and_made(mover: Run, tmp_path: Path) -> None:
    tree = build(SPEC)
    tree.write(tmp_path / "dest")
    source, copy = (tmp_path / "dest").as_uri(), tmp_path / "copy"
    plan = answer(mover("copy", source, copy.as_uri(), "--plan", "--json"))
    assert 0 < plan["files"] < len(tree.files), "the lists are published, not copied"
    assert [found["backup_set_id"] for found in plan["sets"] if found["tenant_id"] == 1001] == [1, 2, 4]
    assert not copy.exists(), "a plan changes nothing"
    status, out, _ = mover("copy", source, copy.as_uri())
    assert status == 0
    assert f"copied {plan['files']} files" in out
    assert "published set 1 of tenant 1001" in out
    plan = answer(mover("copy", source, copy.as_uri(), "--plan", "--json"))
    assert (plan["files"], plan["files_to_compare"]) == (0, 0)
    error = answer(mover("copy", copy.as_uri(), (copy / "inside").as_uri(), "--json"), 2)["error"]
    assert "lie in each other" in error["message"]
