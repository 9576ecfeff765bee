"""A cluster from end to end on the command line: made, archived, backed up, grown, checked, restored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mover.cli import app


@pytest.fixture
def mover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command with --json; the exit status and the object it printed."""
    (tmp_path / "dest").mkdir()
    for name, value in {
        "SOURCE": f"sim://{tmp_path / 'cluster'}",
        "DEST": f"file://{tmp_path / 'dest'}",
        "STATE_DIR": tmp_path / "state",
        "CLUSTER_NAME": "synthetic",
        "COMPRESSION": "none",
        "ARCHIVE_WAIT": "0s",
    }.items():
        monkeypatch.setenv(f"MOVER_{name}", str(value))

    def run(*arguments: str) -> tuple[int, Any]:
        status = app.run([*arguments, "--json"])
        out, _ = capsys.readouterr()
        return status, json.loads(out.splitlines()[-1]) if out.strip() else None

    return run


def test_the_whole_story(mover: Any, tmp_path: Path) -> None:
    small = ("--tenants", "2", "--pgs", "4", "--blocks", "2", "--block-size", "64KiB", "--log-size", "512KiB")
    assert mover("sim", "create", str(tmp_path / "cluster"), "--seed", "4", *small)[0] == 0
    status, error = mover("backup", "full")
    assert (status, error["error"]["code"]) == (4, -9040)
    assert mover("archivelog", "start")[0] == 0
    status, run = mover("archivelog", "run", "--until-caught-up")
    assert status == 0 and {row["tenant_id"] for row in run["rounds"]} == {1, 1001, 1002}
    # Not restorable yet is exit status 3: the archive has not passed the snapshot.
    status, full = mover("backup", "full")
    assert status == 3 and [row["backup_type"] for row in full["sets"]] == ["D", "D"]
    assert mover("sim", "grow", str(tmp_path / "cluster"))[0] == 0
    assert mover("archivelog", "run", "--until-caught-up")[0] == 0
    status, later = mover("backup", "incremental")
    assert [row["backup_type"] for row in later["sets"]] == ["I", "I"]
    assert all(row["reused_macro_block_count"] > 0 for row in later["sets"])
    assert mover("validate")[1]["ok"]
    assert [row["restorable"] for row in mover("show", "sets")[1]["sets"] if row["backup_set_id"] == 1] == [True] * 2
    windows = mover("show", "windows")[1]
    assert {row["tenant_id"] for row in windows["windows"]} == {1001, 1002}
    assert 1 not in {row["tenant_id"] for row in windows["holes"]}
    into = tmp_path / "restored"
    status, restored = mover("restore", "--tenant", "1001", "--target", str(into))
    assert status == 0 and restored["macro_block_count"] > 0 and (into / "restored.json").is_file()
    status, ended = mover("archivelog", "stop")
    assert status == 0 and {row["status"] for row in ended["rounds"]} == {"STOP"}
    status, error = mover("archivelog", "run", "--until-caught-up")
    assert status == 4
