"""Doctor on a real engine and real destinations."""

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_site_that_works(story):
    site = story.site
    found = await site.mover.ok("doctor", "--seconds", "0.5")
    assert found["ok"]
    states = {(check["subject"], check["check"]): check["state"] for check in found["checks"]}
    # How far behind the archive is depends on what runs; and not every store decides itself that a name is taken.
    depends = {("destination", "archive"), *([("destination", "exclusive")] if site.kind == "s3" else [])}
    assert {state for place, state in states.items() if place not in depends} == {"ok"}, found
    assert {("source", "reach"), ("source", "log"), ("destination", "large"), ("destination", "archive")} <= set(states)
    assert ".mover-doctor" not in str((await site.mover.run("validate")).json)


async def test_without_a_round_a_backup_would_be_refused(file_story, tmp_path):
    mover = file_story.site.mover.but(tmp_path / "home", dest=tmp_path.as_uri())
    ran = await mover.run("doctor", "--seconds", "0")
    assert ran.code == 4
    [check] = [check for check in ran.json["checks"] if check["state"] == "fail"]
    assert check["check"] == "archive" and "-9040" in check["detail"] and "archivelog start" in check["advice"]
