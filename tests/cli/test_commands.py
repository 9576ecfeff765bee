"""The command line as other programs meet it: streams, exit statuses, and options in any place."""

import json
import os

import click
import pytest

from mover import __version__, config
from mover.cli import app
from mover.config import OPTIONS
from mover.rootservice.state import join_pace


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for option in OPTIONS:
        monkeypatch.delenv(option.env, raising=False)
    monkeypatch.setenv("MOVER_STATE_DIR", str(tmp_path / "state"))
    # No file of this machine may reach into a test.
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    monkeypatch.setenv("MOVER_CONFIG", str(empty))


@pytest.fixture
def mover(capsys):
    """Run a command; (status, stdout, stderr)."""

    def run(*arguments):
        status = app.run(list(arguments))
        out, err = capsys.readouterr()
        return status, out, err

    return run


def leaves(command=app.mover, path=()):
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path, command


LEAVES = list(leaves())


def test_the_commands_are_the_ones_that_work():
    """Spellings that other programs depend on; nothing is listed before it works."""
    assert {" ".join(path) for path, _ in LEAVES} == {
        "demo",
        "archivelog start",
        "archivelog stop",
        "archivelog status",
        "archivelog run",
        "backup full",
        "backup incremental",
        "backup resume",
        "backup cancel",
        "backup status",
        "restore",
        "validate",
        "inspect",
        "copy",
        "doctor",
        "sweep",
        "throttle",
        "serve",
        "key list",
        "key add",
        "key rotate",
        "key remove",
        "catalog rebuild",
        "show sets",
        "show archivelog",
        "show windows",
        "show progress",
        "show tasks",
        "show jobs",
        "config show",
        "sim create",
        "sim grow",
        "bench kernel",
        "bench archive",
        "bench restore",
        "bench peers",
        "bench start",
        "bench target",
        "bench pipeline",
    }


@pytest.mark.parametrize("path", [path for path, _ in LEAVES], ids=" ".join)
def test_every_command_explains_itself(mover, path):
    """Help with an example, the global options, no word of it cut off."""
    status, out, err = mover(*path, "--help")
    assert (status, err) == (0, "")
    assert "Examples:" in out
    assert f"mover {' '.join(path)}" in " ".join(out.split())
    assert "--json" in out
    assert "..." not in out.split("Global options")[0]


@pytest.mark.parametrize(
    "group", [(), ("backup",), ("archivelog",), ("show",), ("config",), ("bench",), ("sim",), ("key",)]
)
def test_a_group_alone_shows_its_help_and_fails(mover, group):
    status, out, err = mover(*group)
    assert (status, out) == (2, "")
    assert "Usage: " in err
    status, out, err = mover(*group, "--json")
    assert (status, err) == (2, "")
    assert json.loads(out)["error"]["kind"] == "UsageError"


def test_version(mover):
    assert mover("--version") == (0, f"mover {__version__}\n", "")
    assert mover("--version", "--json") == (0, f'{{"version": "{__version__}"}}\n', "")


def test_usage_error_on_stderr_or_as_json(mover):
    status, out, err = mover("backup", "fll")
    assert (status, out) == (2, "")
    assert err.startswith("error: no such command 'fll'")
    assert "hint: See `mover backup --help`." in err
    status, out, err = mover("backup", "fll", "--json")
    assert (status, err) == (2, "")
    assert set(json.loads(out)["error"]) >= {"kind", "code", "message", "hint"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["restore"],
        ["restore", "--target"],
        ["restore", "--target", "x", "--until-scn", "soon"],
        ["restore", "--target", "x", "--until-scn", "0"],
        ["restore", "--target", "x", "--until-scn", "5", "--until", "2026-01-01 00:00:00Z"],
        ["restore", "--target", "x", "--until", "yesterday", "--dest", "file:///nowhere"],
        ["validate", "--all", "--set", "1"],
        ["validate", "--sample", "0"],
        ["validate", "--sample", "101"],
        ["show", "sets", "--no-such"],
        ["show", "sets"],
        ["show", "sets", "--dest", "/plain"],
        ["show", "sets", "--dest", "ftp://x"],
        ["backup", "full", "--dest", "file:///tmp/x"],
        ["--config", "/nonexistent.toml", "show", "sets"],
        ["--concurrency", "many", "show", "sets", "--dest", "file:///tmp/x"],
        ["sweep"],
        ["copy", "file:///a"],
        ["copy", "file:///a", "ftp://b"],
        ["copy", "file:///a", "file:///a/b"],
        ["copy", "s3://b/x?endpoint=http://h", "s3://b/x?endpoint=http://h"],
        ["inspect", "x", "--tree", "--records"],
        ["bench", "target"],
        ["bench", "target", "--dest", "file:///tmp/x", "--size", "big"],
        ["bench", "kernel", "--pairs", "0"],
        ["--json"],
    ],
)
def test_what_cannot_be_used_is_status_2(mover, arguments):
    """One JSON object on stdout and nothing else, or an error and a hint on stderr."""
    status, out, err = mover(*arguments, "--json")
    assert (status, err) == (2, "")
    error = json.loads(out)["error"]
    assert error["message"]
    assert error["hint"]
    if arguments != ["--json"]:
        status, out, err = mover(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("error: ")
        assert "\nhint: " in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dest", "file:///a", "config", "show", "--json"],
        ["config", "--dest", "file:///a", "--json", "show"],
        ["--json", "config", "show", "--dest", "file:///a"],
        ["--dest", "file:///b", "config", "--dest", "file:///c", "show", "--dest", "file:///a", "--json"],
    ],
)
def test_global_options_stand_anywhere_and_the_last_wins(mover, arguments):
    status, out, _ = mover(*arguments)
    assert status == 0
    assert json.loads(out)["settings"]["dest"] == "file:///a"


def test_origins(mover, tmp_path, monkeypatch):
    file = tmp_path / "m.toml"
    file.write_text('dest = "file:///f"\nmemory = "1G"\n[cluster]\nname = "obc"\n')
    monkeypatch.setenv("MOVER_MEMORY", "512MiB")
    status, out, _ = mover("--config", str(file), "config", "show", "--origin", "--json", "--concurrency", "8")
    answer = json.loads(out)
    assert status == 0
    assert answer["file"] == str(file)
    kinds = {name: origin["kind"] for name, origin in answer["origins"].items()}
    picked = [kinds[name] for name in ("concurrency", "memory", "cluster_name", "part_size")]
    assert picked == ["flag", "environment", "file", "default"]
    status, out, _ = mover("--config", str(file), "config", "show", "--origin")
    assert status == 0
    assert "512MiB" in out
    assert "environment MOVER_MEMORY" in out
    assert f"{file}: cluster.name" in out


def test_secrets_are_nowhere(mover, monkeypatch):
    """Table, JSON, warnings and errors."""
    monkeypatch.setenv("MOVER_SOURCE_PASSWORD", "TOPSECRET1")
    url = "oss://b/d?host=h&access_id=i&access_key=TOPSECRET2&region=x"
    for arguments in (
        ["config", "show", "--dest", url],
        ["config", "show", "--dest", url, "--json", "--origin"],
        ["show", "sets", "--dest", url + "&acess_key=TOPSECRET3"],
        ["show", "sets", "--json", "--dest", url + "&acess_key=TOPSECRET3"],
        ["--catalog", "nonsense://u:TOPSECRET4@h/d", "show", "sets", "--dest", "file:///nonexistent/x"],
    ):
        _, out, err = mover(*arguments)
        assert out + err
        assert "TOPSECRET" not in out + err


def test_a_secret_on_the_line_is_warned_about(mover):
    _, _, err = mover("config", "show", "--dest", "s3://b/p?access_id=i&access_key=TOPSECRET2")
    assert "MOVER_DEST" in err


def test_slip_in_a_variable_is_warned_about(mover, monkeypatch):
    monkeypatch.setenv("MOVER_DSET", "file:///x")
    _, _, err = mover("config", "show")
    assert "MOVER_DSET" in err
    assert "MOVER_DEST" in err


def test_an_empty_destination(mover, tmp_path):
    """Views of nothing are empty lists and say so; a backup is refused; nothing to inspect is an error."""
    (tmp_path / "backup").mkdir()
    dest = ["--dest", f"file://{tmp_path / 'backup'}"]
    for view, key in (("sets", "sets"), ("archivelog", "rounds"), ("windows", "windows"), ("jobs", "jobs")):
        status, out, err = mover("show", view, *dest, "--json")
        assert (status, err) == (0, "")
        assert json.loads(out)[key] == []
    assert mover("show", "windows", *dest)[:2] == (0, "nothing can be restored\n")
    status, out, _ = mover("restore", *dest, "--target", str(tmp_path / "new"), "--json")
    assert status == 4
    assert not (tmp_path / "new").exists()
    assert mover("inspect", str(tmp_path / "none"))[0] == 1


def test_a_destination_that_is_not_there_is_unreachable(mover, tmp_path):
    status, out, _ = mover("show", "sets", "--dest", f"file://{tmp_path / 'none'}", "--json")
    assert status == 7
    assert json.loads(out)["error"]["kind"] == "UnreachableError"
    assert not (tmp_path / "none").exists()


def test_a_file_that_does_not_decode_is_status_5(mover, tmp_path):
    file = tmp_path / "tenant_data_backup_info"
    file.write_bytes(b"not a backup")
    status, out, _ = mover("inspect", str(file), "--json")
    assert status == 5
    assert json.loads(out)["files"][0]["path"].endswith("tenant_data_backup_info")


def test_a_defect_is_status_1_with_a_traceback_and_no_secret(mover, monkeypatch):
    def broken(*_arguments, **_options):
        raise RuntimeError("s3://b?access_key=TOPSECRET9")

    monkeypatch.setattr("mover.cli.invocation.Invocation.settings", broken)
    status, out, err = mover("config", "show", "--json")
    assert status == 1
    assert json.loads(out)["error"]["kind"] == "InternalError"
    assert "Traceback" in err
    assert "TOPSECRET9" not in out + err


def test_demo_refuses_a_directory_that_is_in_use(mover, tmp_path):
    (tmp_path / "mine").write_text("x")
    status, out, err = mover("demo", "--dir", str(tmp_path), "--quiet")
    assert (status, out) == (4, "")
    assert "is not empty" in err
    assert (tmp_path / "mine").read_text() == "x"


def test_throttle_changes_the_limits_of_what_runs(mover, tmp_path):
    dest = ("--dest", (tmp_path / "dest").as_uri())
    status, out, _ = mover("throttle", *dest, "--json")
    assert (status, json.loads(out)) == (0, {"rate_limit": None, "request_limit": None})
    status, out, _ = mover("throttle", *dest, "--json", "--rate-limit", "5MB/s")
    assert status == 4, "nobody is there to limit"
    settings = config.load({"dest": dest[1], "request_limit": "30/s"}, os.environ, None)
    running = join_pace(settings)
    try:
        assert running.limits == (0, 30)
        status, out, _ = mover("throttle", *dest, "--json", "--rate-limit", "5MB/s")
        assert (status, json.loads(out)) == (0, {"rate_limit": 5 << 20, "request_limit": 30})
        assert running.limits == (5 << 20, 30)
        status, out, _ = mover("throttle", *dest, "--rate-limit", "none")
        assert (status, out) == (0, "rate limit none, request limit 30/s\n")
        assert running.limits == (0, 30)
    finally:
        running.close()
    assert mover("throttle", *dest, "--rate-limit", "fast")[0] == 2


def test_a_synthetic_cluster_from_the_command_line(mover, tmp_path):
    site = str(tmp_path / "site")
    small = ["--observers", "1", "--pgs", "1", "--blocks", "1", "--block-size", "8KiB", "--log-size", "64KiB"]
    status, out, err = mover("sim", "create", site, "--seed", "5", *small, "--json")
    assert (status, err) == (0, "") and json.loads(out)["generation"] == 0
    status, out, _ = mover("sim", "grow", site, "--json")
    assert status == 0 and json.loads(out)["generation"] == 1
    assert mover("sim", "create", site)[0] == 4
    assert mover("sim", "grow", str(tmp_path / "nothing"))[0] == 4
    assert mover("sim", "create", str(tmp_path / "other"), "--observers", "0")[0] == 4
    assert mover("sim", "create", str(tmp_path / "other"), "--log-size", "much")[0] == 2


def test_a_secret_in_an_address_to_inspect(mover):
    address = "s3://bucket/p?endpoint=http://127.0.0.1:9&access_id=i&access_key=TOPSECRET2"
    for more in ([], ["--tree"], ["--json"]):
        _, out, err = mover("inspect", address, *more)
        assert "others can read a command line" in err
        assert "TOPSECRET" not in out + err
