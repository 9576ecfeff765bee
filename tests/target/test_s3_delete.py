"""Removing many objects: a thousand with one request, and none is taken for gone that is not."""

from dataclasses import replace

import pytest
from oss_rules import AMAZON, OSS
from oss_server import oss_server

from mover.clock import SystemClock
from mover.errors import TargetError, TargetLocked, UnreachableError
from mover.target.s3 import S3Target
from mover.target.url import open_target, parse_url

both = pytest.mark.parametrize("sender", ["fast", "aiobotocore"])
YEAR_3000 = {"x-amz-object-lock-retain-until-date": "3000-01-02T03:04:05Z"}


@pytest.fixture
async def opened(oss, base, monkeypatch, request):
    """A destination at the store with OSS's rules, and the store."""
    for name, value in oss.environment.items():
        monkeypatch.setenv(name, value)
    oss.misdeeds.clear()
    target = await open_target(oss.url(base, sender=getattr(request, "param", "fast")))
    yield target, oss, oss.buckets["mover"]
    await target.aclose()


def fill(bucket, base, count, **kept):
    names = [f"{n:05} <é&>" for n in range(count)]
    for name in names:
        bucket.put(f"{base}/{name}", b"x", kept, {})
    return names


@pytest.mark.parametrize("opened", ["fast", "aiobotocore"], indirect=True)
async def test_a_thousand_with_one_request(opened, base):
    target, store, bucket = opened
    names = fill(bucket, base, 2300)
    before = store.count("POST", "?delete"), store.count("DELETE")
    await target.delete_many(names)
    assert [key for key in bucket.objects if key.startswith(f"{base}/")] == []
    assert store.count("POST", "?delete") - before[0] == 3
    assert store.count("DELETE") == before[1]
    assert all("content-md5" in headers for headers in store.of("POST", "?delete")[-3:])


@pytest.mark.parametrize("opened", ["fast", "aiobotocore"], indirect=True)
async def test_a_key_that_was_refused_in_a_200_answer(opened, base):
    """It is asked for again by itself, and what is said then counts."""
    target, store, bucket = opened
    names = fill(bucket, base, 5)
    store.misbehave("key", "InternalError", names[1])
    store.misbehave("key", "NoSuchKey", names[2])  # as if it had gone meanwhile
    before = store.count("DELETE", "00001")
    await target.delete_many(names)
    assert [key for key in bucket.objects if key.startswith(f"{base}/")] == [f"{base}/{names[2]}"]
    assert store.count("DELETE", "00001") == before + 1
    fill(bucket, base, 5)
    store.misbehave("key", "AccessDenied", names[3])
    store.misbehave("refused", "DELETE", "00003")
    with pytest.raises(UnreachableError, match="AccessDenied") as caught:
        await target.delete_many(names)
    assert caught.value.hint
    assert [key for key in bucket.objects if key.startswith(f"{base}/")] == [f"{base}/{names[3]}"]


@pytest.mark.parametrize("opened", ["fast", "aiobotocore"], indirect=True)
@pytest.mark.parametrize("kind", ["empty-200", "error-200", "slow-down", "lost", "retry-after"])
async def test_an_answer_that_says_nothing_of_the_keys(opened, base, kind):
    target, store, bucket = opened
    names = fill(bucket, base, 4)
    if kind == "retry-after":
        target._client._clock = Patient()
    store.misbehave(kind, "POST", "?delete")
    await target.delete_many(names)
    assert [key for key in bucket.objects if key.startswith(f"{base}/")] == []
    assert store.count("POST", "?delete") >= 1
    assert all(misdeed.times == 0 for misdeed in store.misdeeds)


class Patient(SystemClock):
    async def sleep(self, seconds):
        pass


async def test_what_a_retention_policy_keeps_is_told_with_its_date(opened, base):
    target, _, bucket = opened
    names = fill(bucket, base, 6)
    locked = names[1:3]
    for name in locked:
        bucket.objects[f"{base}/{name}"].kept = dict(YEAR_3000)
    with pytest.raises(TargetLocked, match=r"2 objects at oss://.* are locked") as caught:
        await target.delete_many(names)
    assert sorted(caught.value.locked) == locked
    assert {until.isoformat() for until in caught.value.locked.values()} == {"3000-01-02T03:04:05+00:00"}
    assert caught.value.where["until"] == "3000-01-02T03:04:05+00:00"
    assert "repeat the command after 3000" in caught.value.hint
    assert sorted(key for key in bucket.objects if key.startswith(f"{base}/")) == [f"{base}/{name}" for name in locked]
    with pytest.raises(TargetLocked, match=r"is locked until 3000-01-02T03:04:05\+00:00"):
        await target.delete(locked[0])
    for name in locked:
        bucket.objects[f"{base}/{name}"].kept = {}
    await target.delete_many(names)


@both
async def test_a_store_that_does_not_know_it(base, monkeypatch, sender):
    with oss_server(replace(AMAZON, delete_objects=False)) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        target = await open_target(store.url(base, sender=sender))
        for _ in range(2):
            names = fill(store.buckets["mover"], base, 20)
            await target.delete_many(names)
            assert store.objects == {}
        assert store.count("POST", "?delete") == 1
        assert store.count("DELETE") == 40
        await target.aclose()


async def test_a_store_that_takes_fewer(base, monkeypatch):
    with oss_server(replace(OSS, delete_most=10)) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        destination = parse_url(store.url(base))
        few = replace(destination, profile=replace(destination.profile, delete_most=10))
        target = S3Target(few)
        await target.open()
        await target.delete_many(fill(store.buckets["mover"], base, 35))
        assert store.objects == {}
        assert store.count("POST", "?delete") == 4
        await target.aclose()
        eager = S3Target(destination)
        await eager.open()
        with pytest.raises(TargetError, match="MalformedXML"):
            await eager.delete_many(fill(store.buckets["mover"], base, 35))
        await eager.aclose()
