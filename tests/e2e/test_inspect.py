"""`mover inspect` decodes every file that mover wrote, where it is."""

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_every_file_is_decoded(story, request):
    site = story.site
    if site.tree is not None:
        place = str(site.tree)
        # What a crashed writer left is no file of the tree.
        expected = {str(path) for path in site.tree.rglob("*") if path.is_file() and ".tmp." not in path.name}
    else:
        place = site.mover.settings["dest"]
        client = request.getfixturevalue("e2e_weed").client()
        listed = client.get_paginator("list_objects_v2").paginate(Bucket="mover", Prefix="backup/")
        expected = {item["Key"].removeprefix("backup/") for page in listed for item in page["Contents"]}
        client.close()
    ran = await site.mover.run("inspect", place)
    files = ran.json["files"]
    assert {file["path"] for file in files} == expected
    bad = [file for file in files if not file["ok"] or file["kind"] == "unknown" or file.get("error")]
    assert (bad, ran.code) == ([], 0)

    ran = await site.mover.run("inspect", place, "--records")
    assert ran.code == 0
    records = ran.lines
    assert [record for record in records if record.get("error")] == []
    assert {record["path"] for record in records} == {file["path"] for file in files if file["records"]}


async def test_one_file_by_its_path_below_the_destination(story):
    path = "seekdb/1/incarnation_1/1/data/tenant_data_backup_info"
    answer = await story.site.mover.ok("inspect", path)
    assert [(file["path"].endswith(path), file["ok"]) for file in answer["files"]] == [(True, True)]
    records = (await story.site.mover.run("inspect", path, "--records")).lines
    assert len(records) >= 2


async def test_what_is_not_ours_is_said(story, tmp_path):
    (tmp_path / "macro_block_1.0").write_bytes(b"nothing of the kind" * 100)
    ran = await story.site.mover.run("inspect", tmp_path)
    assert [file["ok"] for file in ran.json["files"]] == [False]
    assert (await story.site.mover.run("inspect", tmp_path / "missing")).code == 1
