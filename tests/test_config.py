"""The table of options: where values come from, how they parse, and what is never shown."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover import config, config_values
from mover.config_secret import MASK, environment_secrets, redact, redact_url, url_secrets
from mover.errors import ConfigError

FLAG, ENV, FILE, DEFAULT = "lz4", "zstd:3", "zstd:4", "auto"


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "mover.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("flag", "env", "in_file", "expected", "kind"),
    [
        (FLAG, ENV, FILE, FLAG, "flag"),
        (None, ENV, FILE, ENV, "environment"),
        (None, None, FILE, FILE, "file"),
        (None, None, None, DEFAULT, "default"),
        (None, "", FILE, FILE, "file"),
    ],
)
def test_nearest_place_wins(toml, flag, env, in_file, expected, kind):
    """Flag, environment, file, default; an empty variable is not set."""
    file = toml(f'compression = "{in_file}"') if in_file else None
    environment = {} if env is None else {"MOVER_COMPRESSION": env}
    settings = config.load({"compression": flag}, environment, file)
    assert expected == settings.compression
    assert kind == settings.origins()["compression"].kind


def test_every_row_can_be_set_from_file_and_environment(toml):
    """No row of the table is forgotten by one of the places."""
    samples = {
        "source": "seekdb:///s",
        "dest": "file:///d",
        "catalog": "sqlite+aiosqlite:///c",
        "state_dir": "/x",
        "cluster_name": "obc",
        "cluster_id": "7",
        "compression": "lz4",
        "memory": "1G",
        "concurrency": "9",
        "part_size": "16MiB",
        "workers": "3",
        "processes": "2",
        "rate_limit": "200MB/s",
        "request_limit": "300/s",
        "retry_for": "5m",
        "file_timeout": "1m",
        "sse": "aws:kms",
        "sse_kms_key_id": "alias/backup",
        "storage_class": "STANDARD_IA",
        "tags": "team=dba",
        "object_lock": "governance:30d",
        "flush_interval": "2s",
        "archive_wait": "5s",
        "lease_ttl": "30s",
        "full_at": "0 1 * * SAT",
        "incremental_at": "0 1 * * TUE,THU",
        "window": "22:00-04:30",
        "progress_interval": "1s",
        "scratch_dir": "/y",
        "source_user": "u",
        "source_password": "p4ssw0rd",
        "source_password_file": "/nowhere",
        "encrypt": "aes-256-gcm",
        "encrypt_passphrase": "correct horse",
        "encrypt_passphrase_file": "/nowhere",
        "encrypt_key_file": "/etc/mover/key",
        "encrypt_kms": "aws-kms://alias/backup?region=eu-central-1",
        "offline": "true",
        "log_level": "debug",
        "log_format": "json",
    }
    assert {option.name for option in config.OPTIONS} == set(samples)
    from_env = config.load({}, {f"MOVER_{name.upper()}": value for name, value in samples.items()}, None)
    lines = [f"{option.toml} = {json.dumps(samples[option.name])}" for option in config.OPTIONS]
    from_file = config.load({}, {}, toml("\n".join(lines)))
    assert from_env == from_file
    defaults = config.load({}, {}, None)
    unchanged = [
        option.name for option in config.OPTIONS if getattr(from_env, option.name) == getattr(defaults, option.name)
    ]
    assert unchanged == []


def test_settings_can_be_made_directly_with_the_same_defaults():
    """Who embeds mover needs no load()."""
    assert config.load({}, os.environ, None).memory == config.Settings().memory == 256 << 20
    assert dataclasses.replace(config.Settings(), dest="file:///d").dest == "file:///d"


def test_unknown_key_names_file_key_and_nearest(toml):
    file = toml('[cluster]\nnane = "x"')
    with pytest.raises(ConfigError) as caught:
        config.load({}, {}, file)
    assert str(file) in caught.value.message
    assert "'cluster.nane'" in caught.value.message
    assert "'cluster.name'" in caught.value.hint


@pytest.mark.parametrize("text", ["dest = ", "\x00", "dest = 'a'\ndest = 'b'"])
def test_broken_file(toml, text):
    with pytest.raises(ConfigError, match=r"is not TOML"):
        config.load({}, {}, toml(text))


def test_missing_file_is_an_error_when_it_was_named(tmp_path):
    named = config.find_file(str(tmp_path / "none.toml"), {})
    with pytest.raises(ConfigError, match=r"cannot be read: no such file"):
        config.load({}, {}, named)
    assert tmp_path / "a.toml" == config.find_file(None, {"MOVER_CONFIG": str(tmp_path / "a.toml")})
    assert tmp_path / "b.toml" == config.find_file(tmp_path / "b.toml", {"MOVER_CONFIG": "a.toml"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory", "lots"),
        ("memory", "1M"),
        ("memory", "-1G"),
        ("concurrency", "0"),
        ("concurrency", "4.5"),
        ("lease_ttl", "soon"),
        ("file_timeout", "0s"),
        ("lease_ttl", "0s"),
        ("full_at", "at one"),
        ("window", "1-5"),
        ("window", "24:00-05:00"),
        ("window", "01:00-01:00"),
        ("incremental_at", "61 * * * *"),
        ("incremental_at", "0 0 30 2 *"),
        ("compression", "zstd"),
        ("compression", "zstd:99"),
        ("compression", "zstd:0"),
        ("compression", "auto:-9..1"),
        ("compression", "auto:5..2"),
        ("compression", "brotli"),
        ("cluster_name", "../x"),
        ("cluster_name", "a/b"),
        ("cluster_id", "0"),
        ("dest", "/plain/path"),
        ("dest", ""),
        ("log_level", "loud"),
        ("offline", "perhaps"),
        ("concurrency", True),
        ("memory", float("nan")),
        ("archive_wait", float("inf")),
    ],
)
def test_bad_values_name_the_option(name, value):
    """Exit status 2 and a message that says which flag, never another exception."""
    with pytest.raises(ConfigError) as caught:
        config.load({name: value}, {}, None)
    assert "--" + name.replace("_", "-") in caught.value.message
    assert caught.value.exit_code == 2


@given(st.integers(0, 1 << 50))
def test_sizes_print_and_parse_back(count):
    assert count == config_values.parse_size(config_values.format_size(count))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("512", 512), ("1k", 1024), ("8 MiB", 8 << 20), ("8MB", 8 << 20), ("1.5G", 3 << 29), ("2TiB", 2 << 40)],
)
def test_size_spellings(text, expected):
    assert expected == config_values.parse_size(text)


@given(st.integers(0, 10_000_000))
def test_durations_print_and_parse_back(milliseconds):
    seconds = milliseconds / 1000
    assert seconds == pytest.approx(config_values.parse_duration(config_values.format_duration(seconds)), rel=1e-5)


@given(st.text(max_size=30))
def test_parsers_raise_nothing_but_value_error(text):
    for option in config.OPTIONS:
        try:
            option.parse(text)
        except ValueError:
            pass


def test_paths_in_the_file_are_relative_to_it(toml):
    file = toml('state_dir = "state"')
    assert file.parent / "state" == config.load({}, {}, file).state_dir
    assert Path("state") == config.load({"state_dir": "state"}, {}, file).state_dir


def test_password_file(tmp_path, toml):
    """Its first line; the password itself wins where both are named in one place."""
    secret = tmp_path / "secret"
    secret.write_text("from-file\nsecond line\n")
    file = toml('source_password_file = "secret"')
    settings = config.load({}, {}, file)
    assert settings.source_password == "from-file"
    assert str(secret) == settings.origins()["source_password"].place
    assert config.load({}, {"MOVER_SOURCE_PASSWORD": "direct"}, file).source_password == "direct"
    flags = {"source_password_file": str(secret)}
    assert config.load(flags, {"MOVER_SOURCE_PASSWORD": "direct"}, None).source_password == "from-file"
    with pytest.raises(ConfigError, match=r"password file .* cannot be read"):
        config.load({"source_password_file": str(tmp_path / "none")}, {}, None)


def test_secrets_are_in_no_text():
    """repr, as_dict and error texts."""
    dest = "oss://b/d?host=h&access_id=AKID&access_key=TOPSECRET1&acess_key=TOPSECRET2"
    catalog = "mysql+asyncmy://u:TOPSECRET3@h/db"
    environment = {"MOVER_SOURCE_PASSWORD": "TOPSECRET4", "MOVER_DEST": dest, "MOVER_CATALOG": catalog}
    settings = config.load({}, environment, None)
    assert "TOPSECRET" not in repr(settings) + str(settings) + json.dumps(settings.as_dict())
    assert settings.as_dict()["source_password"] == MASK
    assert dest == settings.as_dict(redacted=False)["dest"]
    assert {"TOPSECRET1", "TOPSECRET2", "TOPSECRET3", "TOPSECRET4"} <= set(settings.secrets())
    with pytest.raises(ConfigError) as caught:
        config.load({"dest": "no-scheme?access_key=TOPSECRET5"}, {}, None)
    assert "TOPSECRET5" not in str(caught.value.as_json())


def test_a_password_is_no_flag():
    assert {option.flag for option in config.OPTIONS if option.secret} == {None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x?access_key=abc&profile=oss", "x?access_key=***&profile=oss"),
        ("mysql://u:p@ss@host/db", "mysql://u:***@host/db"),
        (
            '{\'secret_access_key\': \'a b\', "password": "x\\"y"}',
            "{'secret_access_key': '***', \"password\": \"***\"}",
        ),
        ("MOVER_SOURCE_PASSWORD=abc next", "MOVER_SOURCE_PASSWORD=*** next"),
        (
            "https://b/k?X-Amz-Signature=aa&X-Amz-Security-Token=zz&x=1",
            "https://b/k?X-Amz-Signature=***&X-Amz-Security-Token=***&x=1",
        ),
        ("source_password_file=/etc/x token_count=3", "source_password_file=/etc/x token_count=3"),
        ("http://127.0.0.1:8333/bucket", "http://127.0.0.1:8333/bucket"),
    ],
)
def test_redaction(text, expected):
    assert expected == redact(text)
    assert expected == redact(expected)


@given(
    st.from_regex(
        r"(oss|s3)://b/p\?[a-z_]{1,12}=[A-Za-z0-9/+]{8,20}(&[a-z_]{1,12}=[A-Za-z0-9/+]{8,20}){0,3}", fullmatch=True
    )
)
def test_url_secrets_are_exactly_what_is_masked(url):
    shown = redact_url(url)
    assert shown == redact_url(shown)
    assert all(
        f"={secret}" not in shown.partition("?")[2].replace("&", "\n") or secret in shown for secret in url_secrets(url)
    )
    for piece in url.partition("?")[2].split("&"):
        _, _, value = piece.partition("=")
        assert (value in url_secrets(url)) or piece in shown


def test_slips_in_variable_names():
    assert config.unknown_variables({"MOVER_DST": "x", "MOVER_PURE": "1", "PATH": "y"}) == [("MOVER_DST", "MOVER_DEST")]


def test_secrets_of_the_environment():
    """Of sign-ins and proxies; the rest of an environment is not ours, and names of files are no secrets."""
    environment = {
        "AWS_SECRET_ACCESS_KEY": "secret-1",
        "AWS_SESSION_TOKEN": "secret-2",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret-3",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "secret-4",
        "OSS_ACCESS_KEY_SECRET": "secret-5",
        "TENCENTCLOUD_SECRET_KEY": "secret-6",
        "MOVER_SOURCE_PASSWORD": "secret-7",
        "https_proxy": "http://user:secret%208@proxy:1",
        "AWS_ACCESS_KEY_ID": "public-1",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/public/2",
        "AWS_REGION": "public-3",
        "DATABASE_PASSWORD": "public-4",
        "AWS_SESSION_TOKEN_": "public-5",
    }
    found = environment_secrets(environment)
    assert {f"secret-{number}" for number in range(1, 8)} | {"secret%208", "secret 8"} == set(found)
