"""What a wrong flag, a wrong moment and a dead or foreign destination lead to."""

import shutil

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_directory_that_is_not_empty(file_story, tmp_path):
    (tmp_path / "somebody's").write_text("file")
    ran = await file_story.site.mover.run("restore", "--target", tmp_path)
    assert ran.code == 4, str(ran)
    assert str(tmp_path) in ran.error["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["somebody's"]


async def test_a_moment_outside_of_the_windows(story):
    site = story.site
    window = await site.window()
    for arguments in (("--until-scn", window["from_scn"] - 1), ("--until", "2001-01-01 00:00:00"), ("--set", 77)):
        ran = await site.mover.run("restore", "--target", site.new_target(), *arguments)
        assert ran.code == 4, str(ran)
        assert window["from"] in ran.error["hint"]
    person = await site.mover.run("restore", "--target", site.new_target(), "--until", "2001-01-01 00:00:00")
    assert "cannot be restored" in person.error["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "sets", "--dest", "ftp://somewhere/x"),
        ("show", "sets", "--dest", "file:relative"),
        ("show", "sets", "--dest", "s3://"),
        ("archivelog", "status", "--dest", "s3://bucket/x?no_such_option=1"),
        ("backup", "full", "--source", "mysql://root@localhost/"),
        ("backup", "full", "--compression", "brotli"),
        ("restore", "--target", "/tmp/x", "--until", "tomorrow"),
        ("restore", "--target", "/tmp/x", "--until-scn", "5", "--until", "2026-01-01 00:00:00"),
        ("validate", "--all", "--set", "1"),
        ("archivelog", "run", "--flush-interval", "-3s"),
    ],
)
async def test_what_cannot_be_meant(file_story, arguments):
    ran = await file_story.site.mover.run(*arguments)
    assert ran.code == 2, str(ran)
    assert ran.error["message"] and ran.error["hint"]


async def test_a_source_that_is_not_there(file_story, tmp_path):
    for source in (tmp_path / "nothing", tmp_path):
        ran = await file_story.site.mover.run("backup", "full", "--source", f"seekdb://{source}")
        assert ran.code == 2, str(ran)
        assert "not a seekdb base directory" in ran.error["message"]


async def test_a_destination_that_is_not_there(story, tmp_path):
    site = story.site
    if site.kind == "s3":
        # Nothing listens on port 1.
        dest = site.mover.settings["dest"].replace(
            site.mover.settings["dest"].split("endpoint=")[1], "http://127.0.0.1:1"
        )
    else:
        dest = (tmp_path / "unmounted" / "below").as_uri()
    for arguments in (("show", "sets"), ("validate",), ("restore", "--target", site.new_target())):
        ran = await site.mover.run(*arguments, "--dest", dest)
        assert ran.code == 7, str(ran)


async def test_a_wrong_secret_is_refused_and_never_shown(story, tmp_path):
    site = story.site
    if site.kind != "s3":
        pytest.skip("a directory has no secret")
    secret = "Wr0ng/secret+with&marks"
    mover = site.mover.but(tmp_path / "home")
    mover.environment["AWS_SECRET_ACCESS_KEY"] = secret
    right = site.mover.environment["AWS_SECRET_ACCESS_KEY"]
    for arguments in (
        ("show", "sets"),
        ("backup", "full"),
        ("archivelog", "run"),
        ("validate", "--log-level", "debug"),
    ):
        ran = await mover.run(*arguments)
        assert ran.code == 7, str(ran)
        assert secret not in ran.out + ran.err and right not in ran.out + ran.err
    good = await site.mover.run("validate", "--log-level", "debug")
    assert good.code == 0
    assert right not in good.out + good.err
    for path in (site.mover.directory / "state").iterdir():
        assert right.encode() not in path.read_bytes(), path


async def test_an_empty_destination(file_story, tmp_path):
    mover = file_story.site.mover.but(tmp_path / "home", dest=tmp_path.as_uri())
    assert (await mover.ok("show", "sets")) == {"sets": []}
    assert (await mover.ok("show", "windows")) == {"windows": [], "holes": []}
    assert (await mover.ok("archivelog", "status")) == {"rounds": []}
    assert (await mover.run("validate")).code == 4
    ran = await mover.run("restore", "--target", tmp_path / "target")
    assert ran.code == 4
    assert "nothing can be restored" in ran.error["hint"]
    shutil.rmtree(tmp_path / "home")
