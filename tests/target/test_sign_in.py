"""Every way of signing in, keys that end in the middle of a job, and clocks that differ, with both senders."""

import asyncio
import os
import time
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from aiohttp import web
from botocore.credentials import Credentials
from cloud_services import CloudServices
from ways_to_sign_in import FIXED, RENEWED, WAYS, clear, destination, write_file

from mover.clock import SystemClock
from mover.errors import ConfigError, UnreachableError
from mover.target.base import BytesPart
from mover.target.s3 import S3Target
from mover.target.s3_operations import OPERATIONS, make_request
from mover.target.s3_signing import sign
from mover.target.s3_site import Site
from mover.target.url import parse_url

MIB = 1 << 20
both = pytest.mark.parametrize("sender", ["fast", "aiobotocore"])


def senders(ways, few):
    """Ours with every way; the library, which is given its keys by the same provider, with a few."""
    pairs = [("fast", way) for way in ways] + [("aiobotocore", way) for way in few]
    return pytest.mark.parametrize(("sender", "way"), pairs)


class ImpatientClock(SystemClock):
    async def sleep(self, _seconds):
        await asyncio.sleep(0)


@pytest.fixture
async def cloud(weed, monkeypatch):
    clear(monkeypatch)
    async with CloudServices(weed) as running:
        yield running


@pytest.fixture
def sign_in(cloud, monkeypatch, tmp_path, base):
    """Set a way up; the URL of the destination."""

    def set_up(way, **more):
        variables, options = WAYS[way](cloud, tmp_path)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return destination(cloud, base, options, **more)

    return set_up


@asynccontextmanager
async def opened(url, attempts=4):
    target = S3Target(parse_url(url), clock=ImpatientClock(), attempts=attempts)
    try:
        await target.open()
        yield target
    finally:
        await target.aclose()


@pytest.mark.parametrize("way", FIXED)
async def test_ways_without_newer_keys(cloud, sign_in, way):
    async with opened(sign_in(way)) as target:
        await target.put("f", b"content", if_absent=True)
        assert await target.get("f") == b"content"
    assert cloud.refused == []


@senders(RENEWED, ["file", "web-identity", "ecs-ram-role"])
async def test_keys_that_end_while_an_upload_is_under_way(cloud, sign_in, tmp_path, way, sender):
    """Parts before and after the end are in one object; each request that met the end was sent once more."""
    content = [os.urandom(5 * MIB) for _ in range(3)]
    async with opened(sign_in(way, sender=sender)) as target:
        writer = await target.create("f")
        await writer.write(BytesPart(content[0]))
        cloud.end_all()
        if way == "file":
            write_file(cloud, tmp_path)
        for part in content[1:]:
            await writer.write(BytesPart(part))
        await writer.commit()
        assert target.retries == len(cloud.refused) > 0
        assert set(cloud.refused) == {"ExpiredToken"}
        assert await target.get("f", 5 * MIB, 10 * MIB) == content[1] + content[2]
        cloud.end_all()
        if way == "file":
            write_file(cloud, tmp_path)
        assert await target.stat("f") is not None  # HEAD: the store's refusal has no code
        assert cloud.refused[-1] == "ExpiredToken"


@senders(["container", "assume-role", "ecs-ram-role", "cvm-role"], ["assume-role"])
async def test_keys_are_fetched_before_they_end(cloud, sign_in, way, sender):
    cloud.lifetime = timedelta(minutes=8)  # botocore waits for new ones in the last ten minutes
    async with opened(sign_in(way, sender=sender)) as target:
        await target.put("f", b"content")
        before = len(cloud.issued)
        await target.put("g", b"content")
        assert len(cloud.issued) > before
        assert cloud.refused == []


@senders(FIXED, ["session-token"])
async def test_keys_that_have_ended_for_good(cloud, sign_in, way, sender):
    async with opened(sign_in(way, sender=sender)) as target:
        cloud.end_all()
        with pytest.raises(UnreachableError, match="ExpiredToken") as caught:
            await target.put("f", b"content")
        assert "can not be renewed" in caught.value.hint
        assert cloud.refused == ["ExpiredToken"] * 2


@both
async def test_many_requests_look_for_new_keys_once(cloud, sign_in, sender):
    async with opened(sign_in("container", sender=sender)) as target:
        before = len(cloud.issued)
        cloud.end_all()
        await asyncio.gather(*(target.put(f"f{number}", b"content") for number in range(12)))
        assert len(cloud.issued) == before + 1


async def test_a_file_that_comes_a_moment_late(cloud, base, sign_in, tmp_path):
    """The keys have ended and the file still has them; it is written while the request waits for its second try."""

    class Clock(ImpatientClock):
        async def sleep(self, seconds):
            write_file(cloud, tmp_path)
            await super().sleep(seconds)

    target = S3Target(parse_url(sign_in("file")), clock=Clock())
    try:
        await target.open()
        cloud.end_all()
        await target.put("f", b"content")
    finally:
        await target.aclose()
    assert cloud.refused == ["ExpiredToken"] * 2


@both
async def test_a_profile_for_each_store(cloud, base, tmp_path, monkeypatch, sender):
    """The URL's profile goes before the keys of the environment, and signs only its own store."""
    one, other = cloud.issue(temporary=False), cloud.issue(temporary=False)
    config = tmp_path / "config"
    config.write_text(
        "".join(
            f"[profile {name}]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n"
            for name, key in (("one", one), ("other", other))
        )
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-environment")
    other.good = False
    async with opened(destination(cloud, base, {}, aws_profile="one", sender=sender)) as target:
        await target.put("f", b"content")
    assert cloud.refused == []
    with pytest.raises(UnreachableError, match="ExpiredToken"):
        async with opened(destination(cloud, base, {}, aws_profile="other", sender=sender)):
            pass
    with pytest.raises(ConfigError, match="AWS configuration") as caught:
        async with opened(destination(cloud, base, {}, aws_profile="nobody", sender=sender)):
            pass
    assert "aws_profile=" in caught.value.hint


@both
async def test_keys_that_were_replaced_by_others(cloud, sign_in, tmp_path, sender):
    """The old ones are deleted while a job runs: the file has new ones."""
    async with opened(sign_in("file", sender=sender)) as target:
        cloud.issued.clear()
        write_file(cloud, tmp_path)
        await target.put("f", b"content")
        assert cloud.refused == ["InvalidAccessKeyId"]


@senders(["web-identity", "alibaba-oidc"], ["web-identity"])
async def test_a_web_identity_is_read_again(cloud, sign_in, tmp_path, sender, way):
    async with opened(sign_in(way, sender=sender)) as target:
        cloud.end_all()
        cloud.identities = {"rotated"}
        (tmp_path / "identity").write_text("rotated")
        await target.put("f", b"content")
        cloud.end_all()
        cloud.identities = set()
        with pytest.raises(UnreachableError, match="ExpiredToken"):
            await target.put("f", b"content")


@senders(["container", "instance-role", "ecs-ram-role", "alibaba-uri", "credential-process"], ["container"])
async def test_a_service_that_does_not_answer(cloud, sign_in, way, sender, monkeypatch):
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    url = sign_in(way, sender=sender)
    async with opened(url) as target:
        cloud.silent = True
        cloud.end_all()
        with pytest.raises(UnreachableError, match="ExpiredToken"):
            await target.put("f", b"content")
        cloud.silent = False
        await target.put("f", b"content")
    cloud.silent = True
    with pytest.raises((UnreachableError, ConfigError)) as caught:
        async with opened(url, attempts=2):
            pass
    assert "credentials" in caught.value.message


@both
@pytest.mark.parametrize("ahead", [3600, -3600])
async def test_a_clock_that_is_off(cloud, sign_in, sender, ahead, caplog):
    """Ours signs by the store's clock after the first refusal; the library does not, and the error says by how much."""
    content = os.urandom(11 * MIB)
    cloud.ahead = ahead
    url = sign_in("environment", sender=sender)
    side = "behind" if ahead > 0 else "ahead of"
    if sender == "aiobotocore":
        with pytest.raises(UnreachableError, match=f"clock is 60 min {side} the store's") as caught:
            async with opened(url):
                pass
        assert "NTP" in caught.value.hint
        return
    async with opened(url) as target:
        writer = await target.create("f")
        for at in (0, 6 * MIB):
            await writer.write(BytesPart(content[at : at + 6 * MIB]))
        await writer.commit()
        assert cloud.refused == ["RequestTimeTooSkewed"]
        assert abs(target._client.skew - ahead) < 5
        cloud.ahead = 0  # somebody has set it
        await target.put("g", b"content")
        assert await target.get("f") == content
    assert cloud.refused == ["RequestTimeTooSkewed"] * 2
    assert f"60 min {side} that of" in caplog.text


async def test_a_refused_head_with_a_clock_that_is_off(cloud, sign_in):
    async with opened(sign_in("environment")) as target:
        cloud.ahead = 3600
        assert await target.stat("f") is None
        assert cloud.refused == ["RequestTimeTooSkewed"]


@pytest.mark.parametrize("signature", ["s3v4", "s3"])
def test_both_signatures_follow_the_clock(signature):
    site = Site(False, "h", 80, "h", "/b", "/b", "us-east-1", None, None)
    request = make_request(OPERATIONS["head_object"], {"Key": "k"}, None)
    made = [sign(request, site, signature, Credentials("id", "key"), None, offset) for offset in (0, 7200)]
    moments = [_moment(headers) for headers in made]
    assert 7199 <= moments[1] - moments[0] <= 7201
    assert made[0]["Authorization"] != made[1]["Authorization"]


def _moment(headers):
    if "Date" in headers:
        return parsedate_to_datetime(headers["Date"]).timestamp()
    return datetime.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").timestamp()


async def test_every_attempt_is_signed_anew(cloud, sign_in, monkeypatch):
    """Seventeen minutes pass between two attempts, for everybody: an old signature would be refused."""
    passed = [0.0]

    def busy(_request):
        cloud.before = None
        passed[0] = cloud.ahead = 1000.0
        return web.Response(status=503)

    async with opened(sign_in("environment")) as target:
        monkeypatch.setattr("mover.target.s3_signing._now", lambda: time.time() + passed[0])
        cloud.before = busy
        await target.put("f", b"content")
        assert (target.retries, cloud.refused) == (1, [])
