"""The whole story, as a person would run it: what each command said, and whether the restored stores are identical."""

import pytest
from engine_load import check
from marks import found_marks
from table_prints import table_prints

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_commands_in_the_wrong_order_are_refused(story):
    early = story.said["backup too early"]
    assert early.code == 4
    assert (early.error["kind"], early.error["code"]) == ("PreconditionError", -9040)
    assert "not doing" in early.error["message"] and early.error["hint"]
    assert story.said["run too early"].code == 4
    assert story["start"]["status"] == "DOING"
    assert story.said["start again"].code == 4


async def test_the_incremental_reuses_what_did_not_change(story):
    full, incremental = story["full"], story["incremental"]
    assert (full["backup_type"], full["backup_set_id"], full["reused_macro_block_count"]) == ("D", 1, 0)
    assert (incremental["backup_type"], incremental["backup_set_id"]) == ("I", 2)
    assert full["macro_block_count"] > 20
    # The 14,000 first rows did not change, and most of their blocks neither.
    assert incremental["reused_macro_block_count"] > 5
    assert incremental["input_bytes"] < full["input_bytes"]
    assert full["restorable"] and incremental["restorable"]
    for backup in (full, incremental):
        assert backup["proof"]["marker_before"] == backup["proof"]["marker_after"]


async def test_the_views_agree_with_what_was_done(story):
    mover = story.site.mover
    sets = (await mover.ok("show", "sets"))["sets"]
    for shown, said in zip(sets[:2], (story["full"], story["incremental"]), strict=True):
        assert {key: shown[key] for key in said} == said
    rounds = (await mover.ok("show", "archivelog"))["rounds"]
    assert [(found["round"], found["status"]) for found in rounds] == [(1, "DOING")]
    assert rounds[0]["checkpoint_scn"] >= story.end.scn
    windows = await mover.ok("show", "windows")
    window = windows["windows"][0]
    assert window["sets"][:2] == [1, 2]
    assert window["from_scn"] == story["full"]["min_restore_scn"] < story.moment.scn <= window["until_scn"]
    assert (await mover.ok("show", "progress"))["progress"] == []
    assert [job["status"] for job in (await mover.ok("show", "jobs"))["jobs"]][:2] == ["COMPLETED", "COMPLETED"]


async def test_validate_accepts_all_of_it(story):
    variants = [(), ("--archive",), ("--set", "1"), ("--sample", "50")]
    for arguments in variants if story.site.kind == "file" else variants[:1]:
        report = await story.site.mover.ok("validate", *arguments)
        assert report["ok"] and report["violations"] == []
        assert (report["checked_bytes"] > 0 and report["checked_files"] > 0) or arguments == ("--archive",)


async def test_preview_reads_no_blocks_and_writes_nothing(story):
    target = story.site.new_target()
    preview = await story.site.mover.ok("restore", "--target", target, "--until-scn", story.moment.scn, "--preview")
    assert not target.exists()
    assert (preview["set"], preview["until_scn"], preview["preview"]) == (2, story.moment.scn, True)
    assert preview["bytes_to_read"] > 0


async def test_a_restore_to_an_scn_is_identical(story):
    site = story.site
    async with site.restored("--until-scn", story.moment.scn) as copy:
        assert await table_prints(copy.options) == story.moment.prints
        assert copy.report["set"] == 2
        # It is a database again: it takes writes, and keeps them over a restart.
        await copy.query("INSERT INTO marks.t VALUES (1000000, 'after')")
        await copy.server.stop()
        await copy.server.start(boot_seconds=120)
        assert await copy.query("SELECT COUNT(*) FROM marks.t WHERE n = 1000000") == [(1,)]


async def test_a_restore_to_a_time_is_identical(story):
    async with story.site.restored("--until", story.moment.text) as copy:
        assert await table_prints(copy.options) == story.moment.prints


async def test_an_older_set_reaches_the_end_too(story):
    async with story.site.restored("--set", 1, "--until-scn", story.end.scn) as copy:
        assert await table_prints(copy.options) == story.end.prints
        assert await found_marks(copy.options) == story.marks_at_end
        await check(copy.options, story.committed, at_most=story.committed, row_bytes=200)
