"""The keys that other programs read, letter by letter; nothing but JSON on stdout (``Ran.json`` holds that)."""

from datetime import datetime

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

_BACKUP = {
    "backup_set_id": int,
    "backup_type": str,
    "status": str,
    "tenant_id": int,
    "min_restore_scn": int,
    "macro_block_count": int,
    "reused_macro_block_count": int,
    "input_bytes": int,
    "output_bytes": int,
    "elapsed_seconds": float,
}
_TIME = datetime.fromisoformat


def _has(found, keys):
    for key, kind in keys.items():
        assert key in found, f"{key} is missing in {found}"
        if kind is _TIME:
            assert _TIME(found[key]).tzinfo is not None, f"{key} is {found[key]!r}, without a zone"
        else:
            assert type(found[key]) is kind, f"{key} is {found[key]!r}"


async def test_backup_and_sets(story):
    _has(story["full"], _BACKUP)
    _has(story["incremental"], _BACKUP)
    assert story["full"]["elapsed_seconds"] > 0
    answer = await story.site.mover.ok("show", "sets")
    assert answer["sets"]
    for shown in answer["sets"]:
        _has(shown, _BACKUP)
        assert shown["status"] in {"COMPLETED", "RUNNING", "FAILED", "DELETING"}


async def test_archivelog_status(file_story):
    keys = {
        "round": int,
        "tenant_id": int,
        "status": str,
        "min_first_time": _TIME,
        "max_next_time": _TIME,
        "checkpoint_scn": int,
        "checkpoint_lsn": int,
        "lag_seconds": float,
    }
    answer = await file_story.site.mover.ok("archivelog", "status")
    assert answer["rounds"]
    for found in answer["rounds"]:
        _has(found, keys)


async def test_windows(file_story):
    answer = await file_story.site.mover.ok("show", "windows")
    keys = {"tenant_id": int, "from": _TIME, "until": _TIME, "from_scn": int, "until_scn": int, "sets": list}
    assert answer["windows"] and answer["holes"]
    for window in answer["windows"]:
        _has(window, keys)
    for hole in answer["holes"]:
        _has(hole, {"tenant_id": int, "from": _TIME, "until": _TIME, "reason": str})


async def test_restore_and_validate(file_story):
    mover, target = file_story.site.mover, file_story.site.new_target()
    preview = await mover.ok("restore", "--target", target, "--preview")
    _has(preview, {"target": str, "until_scn": int, "set": int, "log_disk_size": str, "engine_command": list})
    assert preview["engine_command"][:2] == ["seekdb", f"--base-dir={target}"]
    report = await mover.ok("validate")
    _has(report, {"ok": bool, "checked_files": int, "checked_bytes": int, "violations": list})


async def test_every_failure_has_one_form(file_story):
    mover = file_story.site.mover
    for code, arguments in (
        (4, ("restore", "--target", file_story.site.new_target(), "--until-scn", 1)),
        (4, ("validate", "--set", 999)),
        (2, ("restore",)),
        (2, ("no-such-command",)),
        (2, ("show", "sets", "--dest", "gopher://x")),
        (2, ("archivelog", "run", "--source", f"seekdb://{file_story.site.directory}/nothing-here")),
        (7, ("show", "sets", "--dest", f"file://{file_story.site.directory}/nothing/here")),
    ):
        ran = await mover.run(*arguments)
        assert ran.code == code, str(ran)
        assert list(ran.json) == ["error"]
        assert {"kind", "code", "message", "hint"} <= ran.error.keys()
        first = ran.error["message"].split()[0]
        assert not first.istitle() and not ran.error["message"].endswith("."), first


async def test_a_stream_is_json_lines(file_story):
    archiver = await file_story.site.archive()
    await file_story.marks.write(1)
    await file_story.site.archived(file_story.marks.scns[file_story.marks.last])
    await file_story.site.stop_archiver()
    lines = archiver.so_far().lines
    assert lines[-1]["type"] == "result" and lines[-1]["status"] == "DOING"
    assert {"archive_progress"} <= {line["type"] for line in lines}
    for line in lines:
        if line["type"] == "archive_progress":
            _has(line, {"checkpoint_scn": int, "checkpoint_lsn": int, "lag_seconds": float, "time": _TIME})
