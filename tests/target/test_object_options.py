"""Encryption, class, tags and locks: how they are asked for, that they arrive, and that a store without is seen."""

import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from oss_rules import AMAZON, LOCKING
from oss_server import oss_server

from mover.errors import ConfigError, TargetError, TargetLocked
from mover.rootservice.doctor_checks import State
from mover.rootservice.doctor_objects import ObjectsExam
from mover.target.base import BytesPart
from mover.target.object_options import locked_until, parse_options
from mover.target.url import open_target, parse_url

MIB = 1 << 20
both = pytest.mark.parametrize("sender", ["fast", "aiobotocore"])
ALL = {
    "sse": "aws:kms",
    "sse_kms_key_id": "alias/backup key",
    "storage_class": "STANDARD_IA",
    "tags": "team=dba,env=pro d",
    "object_lock": "governance:30d",
}


def test_parameters():
    options = parse_options(ALL)
    assert options.parameters(write_once=False) == {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "alias/backup key",
        "Tagging": "team=dba&env=pro+d",
    }
    more = options.parameters(write_once=True)
    assert (more["StorageClass"], more["ObjectLockMode"]) == ("STANDARD_IA", "GOVERNANCE")
    until = datetime.fromisoformat(more["ObjectLockRetainUntilDate"])
    assert timedelta(days=29.9) < until - datetime.now(UTC) < timedelta(days=30.1)
    assert parse_options({}).parameters(write_once=True) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sse", "aes"),
        ("sse_kms_key_id", "k"),  # without sse=aws:kms
        ("storage_class", "cheap"),
        ("storage_class", "DEEP_ARCHIVE"),
        ("storage_class", "GLACIER"),
        ("tags", "team"),
        ("tags", "=x"),
        ("tags", "a=1,a=2"),
        ("tags", "a=<"),
        ("tags", ",".join(f"k{n}=v" for n in range(11))),
        ("object_lock", "30d"),
        ("object_lock", "governance:0d"),
        ("object_lock", "compliance:1y"),
    ],
)
def test_what_can_not_be_asked_for(name, value):
    with pytest.raises(ValueError, match=name):
        parse_options({name: value})
    with pytest.raises(ConfigError, match=name):
        parse_url(f"s3://bucket/p?{name}={value.replace('&', '%26')}")


def test_the_url_goes_before_the_settings():
    found = parse_url("s3://bucket/p?sse=AES256", {"sse": "aws:kms", "storage_class": "STANDARD_IA"})
    assert (found.objects.sse, found.objects.storage_class) == ("AES256", "STANDARD_IA")
    with pytest.raises(ConfigError, match="object_lock"):
        parse_url("file:///d", {"object_lock": "governance:1d"})


def test_a_lock_that_is_over():
    assert locked_until({}) is None
    assert locked_until({"ObjectLockRetainUntilDate": "2020-01-01T00:00:00Z"}) is None
    assert locked_until({"ObjectLockRetainUntilDate": datetime(3000, 1, 1, tzinfo=UTC)}) is not None
    assert locked_until({"ObjectLockRetainUntilDate": "3000-01-01T00:00:00.000Z"}) is not None


@asynccontextmanager
async def opened(store, base, monkeypatch, **options):
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    store.misdeeds.clear()
    target = await open_target(store.url(base, **options))
    try:
        yield target
    finally:
        await target.aclose()


async def large(target, path, write_once=True):
    writer = await target.create(path, write_once=write_once)
    try:
        for _ in range(2):
            await writer.write(BytesPart(bytes(5 * MIB)))
        await writer.commit()
    except BaseException:
        await writer.abort()
        raise


@both
async def test_they_arrive_with_every_way_of_writing(locking, base, monkeypatch, sender):
    async with opened(locking, base, monkeypatch, profile="generic", sender=sender, **ALL) as target:
        await target.put("info", b"1")
        await target.put("info", b"2")
        await target.put("manifest", b"m", if_absent=True, write_once=True)
        await large(target, "macro")
        await large(target, "scratch", write_once=False)
        single = await target.create("single", write_once=True)
        await single.write(BytesPart(b"s"))
        await single.commit()
        always = {
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": "alias/backup key",
            "x-amz-tagging": "team=dba&env=pro+d",
        }
        for name in ("info", "manifest", "macro", "scratch", "single"):
            kept = locking.objects[f"{base}/{name}"].kept
            assert always.items() <= kept.items()
            once = name in ("manifest", "macro", "single")
            assert kept.get("x-amz-storage-class") == ("STANDARD_IA" if once else None)
            assert kept.get("x-amz-object-lock-mode") == ("GOVERNANCE" if once else None)
        for name in ("manifest", "macro", "single"):
            with pytest.raises(TargetLocked, match=rf"'{name}' at s3://.* is locked until 20"):
                await target.delete(name)
        await target.delete_many(["info", "scratch"])
        with pytest.raises(TargetLocked, match="3 objects"):
            await target.delete_many(["info", "manifest", "macro", "single"])
        assert [info.path async for info in target.list("")] == ["macro", "manifest", "single"]


@both
async def test_what_is_no_longer_locked_goes_with_its_version(locking, base, monkeypatch, sender):
    async with opened(locking, base, monkeypatch, sender=sender, object_lock="compliance:1d") as target:
        for name in ("a", "b", "c"):
            await target.put(name, b"x", write_once=True)
        bucket = locking.buckets["mover"]
        with pytest.raises(TargetLocked):
            await target.delete_many(["a", "b", "c"])
        for name in ("a", "b", "c"):
            bucket.objects[f"{base}/{name}"].kept["x-amz-object-lock-retain-until-date"] = "2020-01-01T00:00:00Z"
        await target.delete("a")
        await target.delete_many(["b", "c", "never"])
        assert [info.path async for info in target.list("")] == []
        assert [key for key, _ in bucket.hidden if key.startswith(f"{base}/")] == []


@both
@pytest.mark.parametrize("option", [{"sse": "AES256"}, {"object_lock": "governance:1d"}])
async def test_a_store_that_ignores_what_it_was_asked_for(base, monkeypatch, sender, option):
    """It takes the headers and says nothing: then the object is not what somebody relies on."""
    with oss_server(replace(AMAZON, deaf=True)) as store:
        async with opened(store, base, monkeypatch, sender=sender, **option) as target:
            with pytest.raises(TargetError, match=r"encrypts|of no lock") as caught:
                await target.put("f", b"x", write_once=True)
            assert caught.value.hint
            with pytest.raises(TargetError, match=r"encrypts|of no lock"):
                await large(target, "g")
            assert store.buckets["mover"].uploads == {}
        assert f"{base}/g" not in store.objects


@both
@pytest.mark.parametrize("rules", [AMAZON, LOCKING], ids=["without", "with"])
async def test_doctor_says_whether_the_bucket_locks(base, monkeypatch, sender, rules):
    with oss_server(rules) as store:
        async with opened(
            store, base, monkeypatch, sender=sender, profile="minio", object_lock="governance:1d"
        ) as target:
            exam = ObjectsExam(target._client, "probe")
            found = [check async for check in exam.checks()]
            lock = found[-1]
            assert (lock.name, lock.state) == ("object lock", State.OK if rules.lock else State.FAIL)
            assert all(check.state == State.OK for check in found[:-1])


async def test_a_bucket_without_object_lock(base, monkeypatch):
    with oss_server(AMAZON) as store:
        async with opened(store, base, monkeypatch, object_lock="governance:1d") as target:
            with pytest.raises(TargetError, match="missing Object Lock"):
                await target.put("f", b"x", write_once=True)
            await target.put("info", b"x")


@both
@pytest.mark.parametrize("confirm", ["crc32c", "md5", "read-back"])
async def test_what_is_locked_goes_with_a_digest(locking, base, monkeypatch, sender, confirm):
    before = len(locking.headers)
    async with opened(
        locking, base, monkeypatch, sender=sender, object_lock="governance:1d", confirm=confirm, profile="generic"
    ) as target:
        await large(target, "f")
        await target.put("g", b"x", write_once=True)
        for line, headers in list(zip(locking.seen, locking.headers, strict=True))[before:]:
            if line.startswith("PUT "):
                assert "content-md5" in headers or "x-amz-checksum-crc32c" in headers


@both
async def test_a_real_server(keys, base, sender):
    """SeaweedFS encrypts with keys of its own, keeps classes and tags, and locks in buckets that were made for it."""
    client = keys.client()
    bucket = f"lock{time.time_ns()}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    url = keys.url(base, bucket=bucket, profile="seaweedfs", sender=sender)
    target = await open_target(f"{url}&object_lock=governance:1d&tags=team=dba,env=x&storage_class=STANDARD_IA")
    await target.put("manifest", b"m", if_absent=True, write_once=True)
    await large(target, "macro")
    await target.put("info", b"1")
    for name in ("manifest", "macro"):
        key = f"{base}/{name}"
        found = client.head_object(Bucket=bucket, Key=key)
        assert found["ObjectLockMode"] == "GOVERNANCE"
        tags = client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "dba", "env": "x"}
        with pytest.raises(TargetLocked):
            await target.delete(name)
    await target.delete_many(["info"])
    assert [info.path async for info in target.list("")] == ["macro", "manifest"]
    await target.aclose()
    target = await open_target(keys.url(base, profile="seaweedfs", sender=sender, sse="AES256"))
    await target.put("info", b"1")
    await large(target, "macro")
    for name in ("info", "macro"):
        assert client.head_object(Bucket=keys.bucket, Key=f"{base}/{name}")["ServerSideEncryption"] == "AES256"
    assert (await target.get("info"), await target.get("macro")) == (b"1", bytes(10 * MIB))
    await target.aclose()
    client.close()
