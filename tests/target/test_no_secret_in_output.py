"""No secret in anything that mover writes: for every way of signing in, when it works and when it fails, at the highest
log level, with tracebacks, in the command line of the process, in what is left in the state directory."""

import asyncio
import base64
import os
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from cloud_services import CONTAINER_TOKEN, CloudServices
from mover_process import Mover
from tls_relay import ConnectProxy, TlsRelay
from ways_to_sign_in import NOTHING, RENEWED, WAYS, destination

DEBUG = ("--log-level", "debug")


@pytest.fixture
async def cloud(weed):
    async with CloudServices(weed) as running:
        yield running


def spellings(secret):
    """How a secret may be written."""
    return {secret, quote(secret), quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")}


def assert_hidden(secrets, place, *texts):
    for secret in secrets:
        for spelling in spellings(secret):
            for text in texts:
                # A piece of one is one too.
                piece = spelling[: max(12, len(spelling) // 2)]
                assert piece not in text, f"{place}: {text[max(0, text.index(piece) - 300) :][:600]}"


def left_behind(directory):
    """Every file of a directory, as text, with its name."""
    return [f"{path} {path.read_bytes().decode('latin-1')}" for path in directory.rglob("*") if path.is_file()]


async def ran(mover, *arguments, text=False):
    """Both streams and the exit status."""
    process = await mover._start(arguments, asyncio.subprocess.PIPE, asyncio.subprocess.PIPE, json=not text)
    command = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode(), command


@pytest.mark.parametrize("way", ["url", "session-token", "alibaba-variables", *RENEWED])
async def test_every_way_of_signing_in(cloud, base, tmp_path, way):
    """It works, it is refused by a store that repeats what it was told, and the services say nothing or nonsense."""
    where = tmp_path / "given"
    where.mkdir()
    variables, options = WAYS[way](cloud, where)
    mover = Mover(tmp_path / "home", {"dest": destination(cloud, base, options)}, {**NOTHING, **variables})

    def hidden():
        return [CONTAINER_TOKEN, *cloud.identities, *(text for key in cloud.issued for text in key.texts)]

    runs = []
    if way in ("url", "session-token", "assume-role"):  # that the others work is seen elsewhere
        runs.append(await ran(mover, "show", "sets", *DEBUG, text=way != "url"))
        assert runs[0][0] == 0, runs
    cloud.end_all()
    cloud.spoilt = True  # keys that are given out from now on are refused too
    runs.append(await ran(mover, "show", "sets", *DEBUG, text=way != "container"))
    assert runs[-1][0] == 7, runs
    assert "ExpiredToken" in runs[-1][1] + runs[-1][2] and "Traceback" in runs[-1][2]
    assert len(cloud.refused) >= 2 and hidden()
    for status, out, err, command in runs:
        assert_hidden(hidden(), f"{way}, exit {status}", out, err, command)
    assert_hidden(hidden(), "state", *left_behind(tmp_path / "home"))


async def test_what_gives_out_keys_fails_and_talks_too_much(cloud, base, tmp_path):
    """A process that writes its secret to stderr or writes no JSON, an STS that repeats the token, a broken file."""
    secret, identity = "sec/process-0123456789abcdef", "identity-0123456789abcdef"
    cases = {}
    for name, script in {
        "stderr": f"import sys; sys.exit('failed with {secret}')",
        "no-json": f'print(\'{{"SecretAccessKey": "{secret}"\')',
        "wrong-version": f'print(\'{{"Version": "{secret}", "SecretAccessKey": "{secret}"}}\')',
        "no-end": f'print(\'{{"Version": 1, "AccessKeyId": "{secret}"}}\')',
    }.items():
        program, config = tmp_path / f"{name}.py", tmp_path / f"{name}.config"
        program.write_text(script)
        config.write_text(f"[profile p]\ncredential_process = {sys.executable} {program}\n")
        cases[name] = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "p"}
    broken = tmp_path / "credentials"
    broken.write_text(f"[p]\naws_access_key_id = x\naws_secret_access_key {secret}\n")
    cases["broken-file"] = {"AWS_SHARED_CREDENTIALS_FILE": str(broken), "AWS_PROFILE": "p"}
    variables, _ = WAYS["web-identity"](cloud, tmp_path)
    (tmp_path / "identity").write_text(identity)
    cases["sts"] = variables
    mover = {
        name: Mover(tmp_path / name, {"dest": destination(cloud, base, {})}, {**NOTHING, **case})
        for name, case in cases.items()
    }
    found = await asyncio.gather(*(ran(each, "show", "sets", *DEBUG, text=True) for each in mover.values()))
    for name, (status, out, err, _) in zip(mover, found, strict=True):
        assert status == 2, (name, out, err)
        assert "no usable credentials" in err and "hint: " in err
        assert_hidden([secret, identity], name, out, err)


async def test_settings_and_errors_of_every_kind(cloud, base, tmp_path):
    """Passwords of source, catalog and proxy, and the passphrase, wherever a command may show them."""
    secrets = [f"TOPSECRET/{name}+{os.urandom(6).hex()}" for name in ("source", "catalog", "proxy", "phrase", "url")]
    source, catalog, proxy, phrase, url = secrets
    proxied = f"http://user:{quote(proxy, safe='')}@127.0.0.1:9"
    variables, _ = WAYS["session-token"](cloud, tmp_path)
    secrets += [text for key in cloud.issued for text in key.texts]
    settings = {
        "dest": f"{destination(cloud, base, {})}&access_id=id&access_key={quote(url, safe='')}",
        "catalog": f"mysql+asyncmy://user:{quote(catalog, safe='')}@127.0.0.1:9/db",
        "source": f"seekdb://{tmp_path}",
        "source_password": source,
        "encrypt_passphrase": phrase,
    }
    environment = {**NOTHING, **variables, "http_proxy": proxied, "no_proxy": "elsewhere.invalid"}
    mover = Mover(tmp_path / "home", settings, environment)
    commands = [
        ("config", "show", "--origin"),
        ("show", "sets"),
        ("show", "jobs"),
        ("doctor", "--seconds", "0"),
        ("backup", "full"),
        ("show", "sets", "--dest", settings["dest"] + "&acess_key=" + quote(url, safe="")),
    ]
    runs = [
        ran(mover, *each, *DEBUG, text=text) for text in (False, True) for each in commands[: 2 if not text else None]
    ]
    for status, out, err, command in await asyncio.gather(*runs):
        assert out + err
        assert_hidden(secrets, f"exit {status}", out, err)
        if "acess_key" in command:
            assert "others can read a command line" in err
        else:
            assert_hidden(secrets, "command line", command)
    assert_hidden(secrets, "state", *left_behind(tmp_path / "home"))


async def test_a_proxy_that_refuses(weed, base, tmp_path):
    secret = "proxy/pass+0123456789abcdef"
    async with TlsRelay(tmp_path / "tls", weed.endpoint) as relay, ConnectProxy() as between:
        environment = {
            **weed.environment,
            "https_proxy": f"http://user:{quote(secret, safe='')}@{between.address}",
            "no_proxy": "elsewhere.invalid",
        }
        for sender in ("fast", "aiobotocore"):
            dest = weed.url(base, endpoint=relay.endpoint, ca=relay.certificate, sender=sender)
            mover = Mover(tmp_path / "home", {"dest": dest}, environment)
            status, out, err, _ = await ran(mover, "show", "sets", *DEBUG, text=True)
            assert status == 7 and "proxy" in err
            assert_hidden(
                [secret, base64.b64encode(f"user:{secret}".encode()).decode(), weed.access_key], sender, out, err
            )
