"""Doctor at an object store: what it finds of real and of bad ones, and the profile that it writes."""

import asyncio
import dataclasses
from pathlib import Path

import pytest
from cloud_services import CloudServices
from fault_proxy import FaultProxy
from hypothesis import given
from hypothesis import strategies as st
from mover_process import Mover
from ways_to_sign_in import WAYS, clear, destination

from mover.config import Settings
from mover.errors import ConfigError
from mover.rootservice import doctor_objects
from mover.rootservice.doctor import examine
from mover.rootservice.doctor_checks import State
from mover.target import s3_probe
from mover.target.profile_file import profile_text, read_profile
from mover.target.profiles import CONFIRMATIONS, PROFILES, Profile
from mover.target.url import open_target, parse_url

WEED = PROFILES["seaweedfs"]


async def examined(url, seconds=0.0):
    told = []
    found = await examine(Settings(dest=url), seconds=seconds, on_check=told.append)
    assert list(found.checks) == told
    return found, {check.name: check for check in found.checks}


@pytest.mark.parametrize("profile", ["seaweedfs", "generic"])
async def test_a_store_that_is_what_its_profile_says(keys, base, profile):
    found, checks = await examined(keys.url(base, profile=profile), seconds=0.1)
    assert found.ok, found.checks
    names = ["reach", "sign-in", "clock", "address", "write", "list", "exclusive", "large", "unfinished", "delete"]
    assert list(checks) == [*names, "throughput", "conditional", "checksums", "parts", "order"]
    assert "variables of the environment" in checks["sign-in"].detail
    assert ("--save" in (checks["conditional"].advice or "")) == (profile == "generic")
    assert found.profile == dataclasses.replace(WEED, name=profile)
    client = keys.client()
    left = client.list_objects_v2(Bucket=keys.bucket, Prefix=f"{base}/").get("Contents", [])
    uploads = client.list_multipart_uploads(Bucket=keys.bucket).get("Uploads", [])
    client.close()
    assert left == [] and [upload for upload in uploads if upload["Key"].startswith(f"{base}/")] == []


async def test_a_profile_that_says_too_much(keys, base):
    """Amazon's says sorted listings, which SeaweedFS has not: --save is what to do, and the result of that is fine."""
    found, checks = await examined(keys.url(base, profile="aws", addressing="path"))
    assert not found.ok
    assert [check.name for check in found.checks if check.state == State.FAIL] == ["order"]
    assert "--save" in checks["order"].advice


@pytest.mark.parametrize(
    ("fault", "where", "name", "words"),
    [
        ("empty-200", "conditional?", "conditional", "not honoured"),
        ("no-such-part", "partNumber=10000", "parts", "up to number 1000;"),
        ("slow-down", "list-type", "reach", "SlowDown"),
    ],
)
async def test_a_store_that_is_not(keys, base, fault, where, name, words):
    async with FaultProxy(keys.endpoint) as proxy:
        proxy.fault(fault, "GET" if name == "reach" else "PUT", where.replace("?", ""), times=1000)
        found, checks = await examined(keys.url(base, endpoint=proxy.endpoint, profile="seaweedfs"))
    assert checks[name].state == State.FAIL
    assert words in checks[name].detail and checks[name].advice
    assert not found.ok


async def test_the_other_way_of_addressing(keys, base):
    """Virtual hosts at an IP address: nobody can resolve that, and doctor finds what works."""
    url = keys.url(base, profile="seaweedfs", addressing="virtual", endpoint=f"http://localhost.invalid:{keys.port}")
    _, checks = await examined(url)
    assert list(checks) == ["reach"]
    address = f"http://127.0.0.1:{keys.port}"
    found = await doctor_objects.other_addressing(parse_url(keys.url(base, addressing="virtual", endpoint=address)))
    assert found.state == State.FAIL and "addressing=path" in found.advice


@pytest.mark.parametrize(("ahead", "state"), [(0, State.OK), (60, State.WARN), (3600, State.FAIL)])
async def test_clocks(weed, monkeypatch, base, tmp_path, ahead, state):
    clear(monkeypatch)
    async with CloudServices(weed) as cloud:
        variables, options = WAYS["container"](cloud, tmp_path)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        cloud.ahead = ahead
        _, checks = await examined(destination(cloud, base, options))
        assert checks["clock"].state == state
        assert "renewed" in checks["sign-in"].detail
        assert {60: "60 s ahead", 3600: "60 min ahead", 0: "agrees"}[ahead] in checks["clock"].detail.replace(
            "61", "60"
        )


async def test_probes_see_what_a_store_ignores(keys, base):
    async with FaultProxy(keys.endpoint) as proxy:
        proxy.fault("empty-200", "PUT", "/md5")  # a store that does not look at Content-MD5
        target = await open_target(keys.url(base, endpoint=proxy.endpoint))
        try:
            assert not await s3_probe._compares_md5(target.client, "x/md5")
            assert await s3_probe._compares_md5(target.client, "x/md5")
            assert not await s3_probe.lists_in_order(target.client, "x")
        finally:
            await target.aclose()


async def test_the_command_shows_each_check_as_it_ends_and_saves_the_profile(keys, base, tmp_path):
    mover = Mover(tmp_path, {}, keys.environment)
    url = keys.url(base, profile="generic")
    file = tmp_path / "store.toml"
    ran = await mover.run("doctor", "--dest", url, "--seconds", "0", "--save", file)
    assert ran.ok()["saved"] == str(file)
    assert ran.json["profile"]["max_parts"] == 10_000
    assert read_profile(str(file)) == dataclasses.replace(WEED, name="generic")
    used = await mover.run("doctor", "--dest", keys.url(base, profile=file), "--seconds", "0.1")
    assert {check["state"] for check in used.ok()["checks"]} == {"ok"}
    assert parse_url(keys.url(base, profile=file)).profile.conditional_put
    # A file that says what is not so is found out.
    file.write_text(file.read_text().replace("sorted_list = false", "sorted_list = true"))
    refused = await mover.run("doctor", "--dest", keys.url(base, profile=file), "--seconds", "0")
    assert refused.code == 4
    nothing = await mover.run("doctor", "--dest", tmp_path.as_uri(), "--save", file)
    assert nothing.code == 2 and "object stores" in nothing.error["message"]


async def test_rows_come_one_by_one(keys, base, tmp_path):
    """The first row is there while the store is still asked: the probe of parts waits until it was seen."""
    seen = asyncio.Event()
    async with FaultProxy(keys.endpoint) as proxy:
        proxy.fault("hang", "PUT", "/write", times=1)
        mover = Mover(tmp_path, {}, keys.environment)
        url = keys.url(base, endpoint=proxy.endpoint, profile="seaweedfs")
        process = await mover._start(
            ("doctor", "--dest", url), asyncio.subprocess.PIPE, asyncio.subprocess.PIPE, json=False
        )
        try:
            while not seen.is_set():
                line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
                assert line
                if " sign-in " in line:
                    seen.set()
            assert process.returncode is None
        finally:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not toml", "is not TOML"),
        ('unheard_of = "x"', "unheard_of"),
        ('addressing = "sideways"', "sideways"),
        ("max_parts = 0", "max_parts"),
        ("max_parts = true", "max_parts"),
        ('confirm = ["sha1"]', "confirm"),
        ("confirm = []", "confirm"),
        ("conditional_put = 1", "conditional_put"),
        ('name = "mine"', "known are"),
    ],
)
def test_a_profile_that_can_not_be_used(tmp_path, text, words):
    file = tmp_path / "profile"
    file.write_text(text)
    for use in (lambda: read_profile(str(file)), lambda: parse_url(f"s3://bucket/p?endpoint=http://h&profile={file}")):
        with pytest.raises(ConfigError, match=words) as caught:
            use()
        assert caught.value.hint
    with pytest.raises(ConfigError, match="can not be read"):
        read_profile(str(tmp_path / "none"))


@given(
    st.builds(
        dataclasses.replace,
        st.sampled_from(list(PROFILES.values())),
        addressing=st.sampled_from(["virtual", "path", "cname"]),
        conditional_put=st.booleans(),
        sorted_list=st.booleans(),
        multipart_etag=st.booleans(),
        confirm=st.lists(st.sampled_from(CONFIRMATIONS), min_size=1).map(tuple),
        default_region=st.one_of(
            st.none(), st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1)
        ),
        min_part=st.integers(1, 1 << 40),
        max_parts=st.integers(1, 1 << 40),
    )
)
def test_a_profile_is_read_as_it_was_written(tmp_path_factory, profile: Profile):
    file = Path(tmp_path_factory.mktemp("profile")) / "p.toml"
    file.write_text(profile_text(profile, "two\nlines"), encoding="utf-8")
    found = read_profile(str(file))
    # A region that is left out is that of the profile it is based on.
    assert dataclasses.replace(found, default_region=None) == dataclasses.replace(profile, default_region=None)
    assert found.default_region == profile.default_region or profile.default_region is None
