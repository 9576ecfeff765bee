"""A real engine, encrypted, through the command line: there and back with the key, nowhere without."""

import pytest
from engine_load import major_compaction
from marks import Marks, found_marks

pytestmark = pytest.mark.asyncio(loop_scope="session")

# As the rows of Marks have it; a table that is not compressed shows it in its blocks, and so does the log.
MARKER = b"<mark "


def plain_files(tree):
    return [path for path in tree.rglob("*") if path.is_file() and MARKER in path.read_bytes()]


async def test_an_engine_comes_back_only_with_the_key(lone, tmp_path):
    site, open_mover = lone, lone.mover
    (tmp_path / "key").write_bytes(bytes(range(32)))
    (tmp_path / "other").write_bytes(bytes(32))
    (tmp_path / "passphrase").write_text("correct horse battery staple\n")
    with_key = {"encrypt": "aes-256-gcm", "encrypt_key_file": str(tmp_path / "key"), "compression": "none"}
    mover = open_mover.but(**with_key)
    marks = Marks(site.options)
    await marks.create()
    await site.query("ALTER TABLE marks.t COMPRESSION = 'none'")

    no_key = open_mover.but(encrypt="aes-256-gcm")
    refused = await no_key.run("archivelog", "start")
    assert (refused.code, refused.error["kind"]) == (2, "ConfigError")
    assert not any(site.tree.iterdir())

    await mover.ok("archivelog", "start")
    await marks.write(20)
    await major_compaction(site.options)
    await mover.ok("backup", "full")
    await marks.write(10)
    await major_compaction(site.options)
    several = mover.but(processes="2")
    incremental = await several.ok("backup", "incremental")
    assert incremental["reused_macro_block_count"] > 0
    await marks.write(5)
    await mover.ok("archivelog", "run", "--until-caught-up")
    assert plain_files(site.tree) == []

    # Another key service or a lost file: a second way in, and a new data key, without a byte of data written.
    await mover.ok("key", "add", "--new-passphrase-file", tmp_path / "passphrase")
    ring = await mover.ok("key", "rotate")
    assert ([slot["kind"] for slot in ring["slots"]], len(ring["keys"])) == (["key-file", "passphrase"], 2)
    key_id = ring["keys"][0]["key_id"]

    for wrong in ({}, {"encrypt_key_file": str(tmp_path / "other")}):
        stranger = open_mover.but(**wrong)
        target = site.new_target()
        refused = await stranger.run("restore", "--target", target)
        assert (refused.code, refused.error["kind"]) == (4, "EncryptionKeyError"), str(refused)
        assert key_id in refused.error["message"] or ring["keys"][1]["key_id"] in refused.error["message"]
        assert not target.exists()
        assert (await stranger.run("backup", "incremental")).code == 4
        assert (await stranger.run("archivelog", "run", "--until-caught-up")).code == 4
    unread = await open_mover.ok("validate")
    assert unread["violations"] == []
    assert len(unread["not_decrypted"]) == 3

    phrase = {"encrypt_passphrase_file": str(tmp_path / "passphrase")}
    keeper = open_mover.but(**phrase)
    checked = await keeper.ok("validate")
    assert (checked["violations"], checked["not_decrypted"]) == ([], [])
    async with site.restored(mover=keeper) as copy:
        assert await found_marks(copy.options) == 35
    async with site.restored("--set", 1, "--until-scn", marks.scns[25], mover=keeper) as copy:
        assert await found_marks(copy.options) == 25
    said = await open_mover.ok("inspect", site.tree)
    assert {file["encrypted_with"] for file in said["files"] if "encrypted_with" in file} == {key_id}
    for ran in (mover.directory).rglob("*"):
        assert not ran.is_file() or b"battery staple" not in ran.read_bytes()
