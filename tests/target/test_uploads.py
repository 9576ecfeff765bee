"""Uploads to a store that does other things than it says: what ends well is stored as sent, all else is an error.

The store is tests/support/oss_server.py, with OSS's rules (CRC-64) and with Amazon's (CRC-32C), which take small parts
here; each is sent to with both senders.
"""

import asyncio
import os
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace

import pytest
import pytest_asyncio
from oss_rules import AMAZON, OSS
from oss_server import oss_server

from mover.clock import SystemClock
from mover.errors import TargetError, TargetExists, UnreachableError
from mover.target import s3_client
from mover.target.base import BytesPart
from mover.target.s3 import S3Target
from mover.target.slots import Slots
from mover.target.url import parse_url

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEAST = 100_000
PARTS = [bytes([n]) * LEAST for n in range(3)]
WHOLE = b"".join(PARTS)


class ImpatientClock(SystemClock):
    def __init__(self):
        self.waits = []

    async def sleep(self, seconds):
        self.waits.append(seconds)
        await asyncio.sleep(0)


@pytest_asyncio.fixture(params=["oss-fast", "amazon-fast", "amazon-aiobotocore"], scope="module", loop_scope="module")
async def together(request):
    """A destination that tries four times, and its store: one for all tests, for a client takes long to make."""
    name, sender = request.param.split("-")
    rules = replace(OSS if name == "oss" else AMAZON, part_least=LEAST)
    with oss_server(rules) as store, pytest.MonkeyPatch.context() as patch:
        async with sent_to(store, patch, sender) as target:
            yield target, store


@pytest.fixture
def opened(together):
    target, store = together
    target._client._clock.waits.clear()
    target._client.slots = Slots(None)
    target._client.retries = 0
    for bucket in store.buckets.values():
        bucket.objects.clear()
        bucket.uploads.clear()
    yield target, store
    store.misdeeds.clear()


@asynccontextmanager
async def sent_to(store, monkeypatch, sender, **limits):
    for variable, value in store.environment.items():
        monkeypatch.setenv(variable, value)
    options = {} if store.rules.dialect == "oss" else {"profile": "minio"}
    destination = parse_url(store.url("p", sender=sender, **options))
    destination = replace(destination, profile=replace(destination.profile, min_part=LEAST, **limits))
    target = S3Target(destination, clock=ImpatientClock(), attempts=4)
    try:
        await target.open()
        await target._client.confirmation()
        yield target
    finally:
        await target.aclose()


async def write(target, path, *parts):
    writer = await target.create(path)
    try:
        for part in parts:
            await writer.write(BytesPart(part))
        return await writer.commit()
    except BaseException:
        await writer.abort()
        raise


def kept(store):
    """What the store has: objects and unfinished uploads."""
    bucket = store.buckets["mover"]
    return {key.removeprefix("p/"): each.data for key, each in bucket.objects.items()}, list(bucket.uploads.values())


PASSING = ["slow-down", "429", "internal", "error-200", "lost", "done-but-500", "reset", "retry-after"]
REQUESTS = {
    "put": ("PUT", "/small"),
    "part": ("PUT", "partNumber=2"),
    "begin": ("POST", "uploads"),
    "complete": ("POST", "uploadId="),
    "look": ("HEAD", ""),
}


@pytest.mark.parametrize("kind", PASSING)
@pytest.mark.parametrize("request_", REQUESTS)
async def test_what_passes_is_repeated(opened, kind, request_):
    """Each answer in turn, to each request of an upload: the object is there once, whole, and nothing beside it."""
    target, store = opened
    if kind == "error-200" and request_ == "look":
        return  # an answer to HEAD has no body
    method, where = REQUESTS[request_]
    store.misbehave(kind, method, where, times=2)
    begun = len(store.seen)
    if request_ == "put":
        await target.put("small", b"content", if_absent=True)
        expected = {"small": b"content"}
    else:
        info = await write(target, "large", *PARTS)
        assert info.size == len(WHOLE)
        expected = {"large": WHOLE}
    assert store.misdeeds[0].times < 2
    objects, uploads = kept(store)
    assert objects == expected
    if request_ == "begin" and kind in ("lost", "done-but-500"):
        assert len(uploads) in (1, 2)  # whose ids nobody was told: for `mover sweep`
        assert {left.path async for left in target.leftovers("")} == {"large"}
    else:
        assert uploads == []
    if kind in ("slow-down", "429", "retry-after"):
        assert target._client.slots.limit < target._client.slots.most
    if kind == "retry-after":
        assert 7.0 in target._client._clock.waits
    assert len(store.seen) > begun


@pytest.mark.parametrize("kind", ["slow-down", "429", "retry-after", "error-200"])
@pytest.mark.parametrize("verb", ["list", "delete", "delete many", "get", "leftovers", "stat"])
async def test_every_request_is_repeated_and_yields_to_a_store_that_asks_for_less(opened, kind, verb):
    target, store = opened
    await target.put("f", b"content")
    before = target._client.slots.limit
    method, where = {"delete": ("DELETE", ""), "delete many": ("POST", "?delete"), "stat": ("HEAD", "")}.get(
        verb, ("GET", "")
    )
    if kind == "error-200" and verb in ("get", "stat"):
        return  # a body is content there, or there is none
    store.misbehave(kind, method, where, times=1)
    if verb == "list":
        assert [info.path async for info in target.list("")] == ["f"]
    elif verb == "get":
        assert await target.get("f") == b"content"
    elif verb == "leftovers":
        assert [left async for left in target.leftovers("")] == []
    elif verb == "stat":
        assert (await target.stat("f")).size == 7
    elif verb == "delete":
        await target.delete("f")
    else:
        await target.put("g", b"x")
        await target.delete_many(["f", "g"])
    assert store.misdeeds[0].times == 0
    assert target._client.slots.limit == (before if kind == "error-200" else max(1, before // 2))
    assert target.retries == 1


@pytest.mark.parametrize(
    "kind", ["empty-200", "other-etag", "other-crc64", "other-crc32c", "no-etag", "damage", "truncate"]
)
@pytest.mark.parametrize("request_", ["put", "part"])
async def test_what_was_stored_otherwise_is_never_published(opened, kind, request_):
    target, store = opened
    amazon = store.rules.dialect == "s3"
    method, where = REQUESTS[request_]
    store.misbehave(kind, method, where, times=9)
    # Such a word about what the store does not speak of is no word.
    silent = {"other-crc64": amazon, "other-crc32c": not amazon, "no-etag": request_ == "put"}.get(kind, False)
    # Of a part whose answer has another ETag Amazon's CRC-32C is right, and the store insists on its own ETag.
    try:
        if request_ == "put":
            await target.put("small", b"content")
        else:
            await write(target, "large", *PARTS)
    except TargetError as error:
        assert not silent
        assert not isinstance(error, TargetExists)
        assert error.hint or "InvalidPart" in str(error)
        assert "large" not in kept(store)[0]
    else:
        # An answer that says less is asked for more: HeadObject, or for a small file the ETag beside its MD5.
        assert silent or (kind, request_) == ("other-crc32c", "put") or (kind, request_) == ("other-crc64", "put")
        objects, _ = kept(store)
        assert objects in ({"small": b"content"}, {"large": WHOLE})
    assert kept(store)[1] == []


@pytest.mark.parametrize("kind", ["empty-200", "swallow"])
async def test_a_completion_that_did_not_happen(opened, kind):
    """Acknowledged and not done: HeadObject finds nothing, and what was uploaded is removed."""
    target, store = opened
    store.misbehave(kind, "POST", "uploadId=", times=9)
    with pytest.raises(TargetError, match=r"acknowledged the object and does not have it|did not store"):
        await write(target, "large", *PARTS)
    assert kept(store) == ({}, [])


@pytest.mark.parametrize("kind", ["lost", "done-but-500"])
async def test_somebody_elses_object_is_not_taken_for_ours(opened, kind):
    """The answer to the completion is lost, and while it is repeated the name has become another's."""
    target, store = opened
    bucket = store.buckets["mover"]
    store.misbehave(kind, "POST", "uploadId=")
    real = bucket.complete

    def replaced(key, *arguments):
        stored = real(key, *arguments)
        bucket.objects[key] = replace(stored, data=b"theirs", kept={"x-amz-meta-mover-nonce": "another"})
        bucket.complete = real
        return stored

    bucket.complete = replaced
    with pytest.raises(TargetError):
        await write(target, "large", *PARTS)
    assert kept(store) == ({"large": b"theirs"}, [])


@pytest.mark.parametrize("sender", ["fast", "aiobotocore"])
@pytest.mark.parametrize(
    ("way", "rules"),
    [
        ("crc32c", {}),
        ("md5", {"crc32c": False}),
        ("md5", {"crc32c": False, "etag": False}),
        ("md5", {"crc32c": False, "md5": False}),
        ("read-back", {"crc32c": False, "md5": False, "etag": False}),
    ],
)
async def test_a_store_is_trusted_in_what_it_was_seen_to_do(monkeypatch, sender, way, rules):
    """Headers that nobody looks at prove nothing: in the end what was stored is read again."""
    with oss_server(replace(AMAZON, part_least=LEAST, multipart_etag=False, **rules)) as store:
        async with sent_to(store, monkeypatch, sender, multipart_etag=False) as target:
            assert (await target._client.confirmation()).name == way
            assert kept(store) == ({}, []), "the probes are removed"
            await write(target, "good", *PARTS)
            # A store that looked at the MD5, and then keeps something else, says so in no way.
            sees = rules.get("etag", True) or way == "read-back"
            store.misbehave("damage", "PUT", "/bad", times=99)
            with pytest.raises(TargetError) if sees else nullcontext():
                await write(target, "bad", b"small")
            with pytest.raises(TargetError) if sees and way != "read-back" else nullcontext():
                await write(target, "bad-parts", *PARTS)  # of large parts only samples are read again
            if sees and way != "read-back":
                assert kept(store) == ({"good": WHOLE}, [])


@pytest.mark.parametrize("sender", ["fast", "aiobotocore"])
async def test_where_no_metadata_is_kept_the_parts_tell_whose_object_it_is(monkeypatch, sender):
    with oss_server(replace(AMAZON, metadata=False, if_none_match="ignored", part_least=LEAST)) as store:
        async with sent_to(store, monkeypatch, sender) as target:
            store.misbehave("lost", "POST", "uploadId=")
            await write(target, "ours", *PARTS)
            store.misbehave("lost", "POST", "uploadId=")
            bucket, real = store.buckets["mover"], store.buckets["mover"].complete

            def replaced(key, *arguments):
                stored = real(key, *arguments)
                bucket.objects[key] = replace(stored, data=b"theirs", etag="0" * 32)
                return stored

            bucket.complete = replaced
            with pytest.raises(TargetError, match="NoSuchUpload"):
                await write(target, "theirs", *PARTS)
            assert kept(store) == ({"ours": WHOLE, "theirs": b"theirs"}, [])


async def test_a_part_that_is_stored_twice_is_there_once(opened):
    target, store = opened
    store.misbehave("lost", "PUT", "partNumber=1")
    store.misbehave("lost", "PUT", "partNumber=3", times=2)
    bucket = store.buckets["mover"]
    stored = []
    real = bucket.part

    def counted(key, upload_id, number, *arguments):
        stored.append(number)
        return real(key, upload_id, number, *arguments)

    bucket.part = counted
    try:
        await write(target, "large", *PARTS)
    finally:
        bucket.part = real
    assert len(stored) > 3
    assert kept(store) == ({"large": WHOLE}, [])


@pytest.mark.parametrize("sender", ["fast", "aiobotocore"])
@pytest.mark.parametrize("count", [5, 6])
async def test_as_many_parts_as_the_store_takes(monkeypatch, sender, count):
    with oss_server(replace(OSS, parts_most=5)) as store:
        async with sent_to(store, monkeypatch, sender, max_parts=5) as target:
            parts = [bytes([n]) * 200_000 for n in range(count)]
            if count == 5:
                await write(target, "f", *parts)
                assert kept(store) == ({"f": b"".join(parts)}, [])
            else:
                with pytest.raises(TargetError, match="more than the 5 parts") as caught:
                    await write(target, "f", *parts)
                assert "--part-size" in caught.value.hint
                assert kept(store) == ({}, [])


@pytest.mark.parametrize("request_", ["put", "part", "complete"])
async def test_a_store_that_never_answers_has_a_deadline(opened, request_, monkeypatch):
    monkeypatch.setattr(s3_client, "ATTEMPT_SECONDS", 0.1)
    monkeypatch.setattr(s3_client, "SLOWEST_BYTES_PER_SECOND", 64 << 20)
    monkeypatch.setattr("mover.target.s3_writer.ABORT_SECONDS", 0.2)
    target, store = opened
    method, where = REQUESTS[request_]
    store.misbehave("silent", method, where, times=99)
    begin = SystemClock().monotonic()
    with pytest.raises(UnreachableError, match="no answer in time"):
        if request_ == "put":
            await target.put("small", b"content")
        else:
            await write(target, "large", *PARTS)
    assert SystemClock().monotonic() - begin < 20
    store.misdeeds.clear()
    await write(target, "after", os.urandom(100))
    assert store.expected_continue == 0


async def test_an_object_has_a_deadline_beside_that_of_each_attempt(opened, monkeypatch):
    target, store = opened
    monkeypatch.setattr(s3_client, "ATTEMPT_SECONDS", 0.4)
    monkeypatch.setattr(target._client, "_retry_for", 1.0)
    monkeypatch.setattr(target._client, "_attempts", None)
    store.misbehave("silent", "PUT", times=999)
    store.misbehave("internal", "HEAD", times=999999)
    with pytest.raises(UnreachableError, match="no answer in time"):
        await target.put("small", b"content")
    assert 1 <= 999 - store.misdeeds[0].times <= 4  # of a thousand
    with pytest.raises(TargetError, match="several tries"):
        await target.stat("small")
