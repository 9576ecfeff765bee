"""What object stores do wrong: each fault is put between the destination and a real server."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from fault_proxy import FaultProxy

from mover.clock import SystemClock
from mover.errors import ConfigError, TargetError, TargetExists, TargetNotFound, UnreachableError
from mover.target import s3_client
from mover.target.base import BytesPart
from mover.target.s3 import S3Target
from mover.target.url import open_target, parse_url

MIB = 1 << 20


class ImpatientClock(SystemClock):
    """Retries without waiting, and remembers how long they would have waited."""

    def __init__(self):
        self.waits = []

    async def sleep(self, seconds):
        self.waits.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def proxy(keys):
    async with FaultProxy(keys.endpoint) as running:
        yield running


@pytest.fixture(params=["fast", "aiobotocore"])
async def store(request, keys, proxy, base):
    """A destination behind the proxy, in a prefix of its own."""
    url = keys.url(base, endpoint=proxy.endpoint, profile="seaweedfs", sender=request.param)
    target = S3Target(parse_url(url), clock=ImpatientClock(), attempts=4)
    await target.open()
    yield target
    await target.aclose()


@pytest.fixture
def uploads(keys, base):
    """Keys of the multipart uploads that were begun and not ended."""

    def look():
        client = keys.client()
        try:
            found = client.list_multipart_uploads(Bucket=keys.bucket).get("Uploads", [])
            return [item["Key"] for item in found if item["Key"].startswith(f"{base}/")]
        finally:
            client.close()

    return look


async def write_parts(target, path, count=3):
    writer = await target.create(path)
    try:
        for n in range(count):
            await writer.write(BytesPart(bytes([n]) * (5 * MIB)))
        return await writer.commit()
    except BaseException:
        await writer.abort()
        raise


async def _until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


PARTS = b"".join(bytes([n]) * (5 * MIB) for n in range(3))


@pytest.mark.parametrize("kind", ["slow-down", "reset", "lost", "damage"])
@pytest.mark.parametrize("if_absent", [False, True])
async def test_put_survives(store, proxy, kind, if_absent):
    proxy.fault(kind, "PUT", times=2)
    await store.put("f", b"content", if_absent=if_absent)
    assert await store.get("f") == b"content"
    # A kept connection that turns out to be closed is replaced without counting; aiohttp does so too.
    assert store.retries == (2 if kind in ("slow-down", "damage") else 1)
    waits = store._client._clock.waits
    assert waits == sorted(waits)


@pytest.mark.parametrize("kind", ["slow-down", "reset", "lost", "damage"])
@pytest.mark.parametrize(
    ("method", "where"),
    [("PUT", "partNumber=2"), ("POST", "?uploads"), ("POST", "uploadId="), ("HEAD", ""), ("DELETE", "")],
)
async def test_multipart_survives(store, proxy, uploads, kind, method, where):
    if kind == "damage" and where != "partNumber=2":
        return
    proxy.fault(kind, method, where)
    await write_parts(store, "f")
    assert await store.get("f") == PARTS
    await store.delete("f")
    assert await store.stat("f") is None
    if not (kind == "lost" and where == "?uploads"):  # an upload whose id was lost is for `mover sweep`
        assert uploads() == []


@pytest.mark.parametrize("kind", ["error-200", "empty-200"])
async def test_complete_that_did_not_happen_is_tried_again(store, proxy, kind):
    proxy.fault(kind, "POST", "uploadId=")
    await write_parts(store, "f")
    assert await store.get("f") == PARTS


@pytest.mark.parametrize("times", [2, 1000])
@pytest.mark.parametrize("kind", ["empty-200", "error-200"])
async def test_pain_01_upload_reported_ok_object_missing(store, proxy, uploads, kind, times):
    """An answer that is not the store's own word is asked for again, and is never taken for a success."""
    for method, where in (("PUT", "/whole"), ("PUT", "partNumber=2"), ("POST", "uploadId=")):
        proxy.fault(kind, method, where, times=times)
        if times < store._client._attempts:
            await store.put("whole", b"content")
            await write_parts(store, "parts")
            assert (await store.get("whole"), await store.get("parts")) == (b"content", PARTS)
            await store.delete("whole")
            await store.delete("parts")
        else:
            with pytest.raises((UnreachableError, TargetError)) as caught:
                await (store.put("whole", b"content") if where == "/whole" else write_parts(store, "parts"))
            assert caught.value.hint
        assert await store.stat("whole") is None and await store.stat("parts") is None
        proxy.faults.clear()
    assert uploads() == []


@pytest.mark.parametrize("kind", ["empty-200", "error-200"])
async def test_an_empty_answer_is_no_empty_listing_and_no_empty_file(store, proxy, uploads, kind):
    await store.put("dir/f", b"content")

    async def listed():
        return [info.path async for info in store.list("dir/")]

    async def left():
        return [each async for each in store.leftovers("dir/")]

    async def size():
        return (await store.stat("dir/f")).size

    reads = [("GET", lambda: store.get("dir/f"), b"content"), ("GET", listed, ["dir/f"]), ("GET", left, [])]
    if kind == "empty-200":
        reads.append(("HEAD", size, 7))
    for method, read, found in reads:
        proxy.fault(kind, method, times=2)
        assert await read() == found
        assert not any(fault.times for fault in proxy.faults)


@pytest.mark.parametrize("kind", ["other-etag"])
async def test_a_put_that_was_not_stored_as_sent_is_no_success(store, proxy, kind):
    proxy.fault(kind, "PUT")
    with pytest.raises(TargetError, match="did not store 'f' as it was sent") as caught:
        await store.put("f", b"content")
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["other-checksum"])
async def test_a_part_that_was_not_stored_as_sent_is_no_success(store, proxy, uploads, kind):
    proxy.fault(kind, "PUT", "partNumber=2")
    with pytest.raises(TargetError, match="did not store part 2 of 'f'"):
        await write_parts(store, "f")
    assert await store.stat("f") is None
    assert uploads() == []


async def test_a_store_that_keeps_refusing_ends_in_an_error(store, proxy, uploads):
    proxy.fault("slow-down", "PUT", "partNumber=", times=1000)
    with pytest.raises(TargetError, match="SlowDown") as caught:
        await write_parts(store, "f")
    assert "several tries" in str(caught.value)
    assert caught.value.hint
    proxy.faults.clear()
    assert uploads() == []
    assert proxy.count("PUT", "partNumber=1") == 4


async def test_a_body_that_is_cut_short_is_read_again(store, proxy):
    content = os.urandom(300_000)
    await store.put("f", content)
    proxy.fault("cut", "GET", "/f", times=2)
    assert await store.get("f") == content
    proxy.fault("cut", "GET", "/f", times=1)
    assert b"".join([piece async for piece in store.stream("f", chunk=100_000)]) == content


async def test_a_lost_answer_to_a_conditional_put_is_not_taken_for_somebody_elses(store, proxy):
    await store.put("theirs", b"first")
    proxy.fault("slow-down", "PUT", "theirs")
    with pytest.raises(TargetExists):
        await store.put("theirs", b"second", if_absent=True)
    proxy.fault("lost", "PUT", "ours")
    await store.put("ours", b"content", if_absent=True)
    assert await store.get("theirs") == b"first"


async def test_no_request_expects_100_continue(store, proxy):
    await store.put("f", b"x" * 100_000)
    await write_parts(store, "g")
    assert proxy.count("PUT") == 4
    assert proxy.expected_continue == 0


async def test_a_store_that_hangs_has_a_deadline(store, proxy, monkeypatch):
    monkeypatch.setattr(s3_client, "ATTEMPT_SECONDS", 0.3)
    proxy.fault("hang", "PUT", times=1)
    await store.put("f", b"content")
    assert await store.get("f") == b"content"
    proxy.fault("hang", "PUT", times=1000)
    begin = time.monotonic()
    with pytest.raises(UnreachableError, match="no answer in time"):
        await store.put("g", b"content")
    assert time.monotonic() - begin < 20


async def test_cancel_does_not_wait_for_a_store_that_hangs(store, proxy, monkeypatch):
    monkeypatch.setattr("mover.target.s3_writer.ABORT_SECONDS", 0.2)
    writer = await store.create("f")
    for _ in range(3):
        await writer.write(BytesPart(bytes(5 * MIB)))
    await _until(lambda: proxy.count("PUT") == 3)
    for method in ("PUT", "POST", "DELETE", "HEAD"):
        proxy.fault("hang", method, times=1000)
    task = asyncio.create_task(writer.commit())
    await _until(lambda: proxy.count("POST", "uploadId=") == 1)
    begin = time.monotonic()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await writer.abort()
    assert time.monotonic() - begin < 5


async def test_an_upload_cancelled_while_it_completes_is_removed(store, proxy, uploads):
    """The server carries the request out although nobody waits for it any more."""
    writer = await store.create("f")
    for n in range(3):
        await writer.write(BytesPart(bytes([n]) * (5 * MIB)))
    task = asyncio.create_task(writer.commit())
    await _until(lambda: proxy.count("POST", "uploadId=") > 0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await writer.abort()
    assert await store.stat("f") is None
    assert uploads() == []


async def test_memory_is_bounded_by_the_parts_under_way(store, proxy):
    """The fifth part is not taken while four are on their way."""
    proxy.fault("hang", "PUT", "partNumber=", times=1000)
    writer = await store.create("f")
    for _ in range(4):
        await writer.write(BytesPart(bytes(5 * MIB)))
    task = asyncio.create_task(writer.write(BytesPart(bytes(5 * MIB))))
    await _until(lambda: proxy.count("PUT", "partNumber=") == 4)
    assert not task.done()
    assert len(writer._tasks) == 4
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    proxy.faults.clear()
    proxy._released.set()
    await writer.abort()


async def test_listing_in_pages(store, keys):
    names = [f"dir/{n:04}" for n in range(1050)]
    client = keys.client()
    for name in names:
        client.put_object(Bucket=keys.bucket, Key=store._client.key(name), Body=b"x")
    client.close()
    assert [info.path async for info in store.list("dir/")] == names
    assert [info.path async for info in store.list("dir/10")] == names[1000:]


async def test_a_changed_object_is_noticed_by_a_stream(store):
    await store.put("f", bytes(12 * MIB))
    pieces = store.stream("f", chunk=MIB)
    await anext(pieces)
    await store.put("f", b"\1" * (12 * MIB))
    with pytest.raises(TargetError, match="changed while it was read"):
        async for _ in pieces:
            pass


def _closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_nobody_answers(monkeypatch, host):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    begin = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        await open_target(f"s3://bucket?endpoint=http://{host}:{_closed_port()}")
    assert time.monotonic() - begin < 10
    assert caught.value.hint and caught.value.exit_code == 7
    assert "hidden" not in f"{caught.value}{caught.value.as_json()}"


@pytest.mark.parametrize("where", ["environment", "url"])
async def test_a_wrong_secret(keys, monkeypatch, where):
    secret = "wrong/+SECRET"
    if where == "environment":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        url = keys.url("p")
    else:
        url = f"{keys.url('p')}&access_id={keys.access_id}&access_key={secret}"
    with pytest.raises(UnreachableError) as caught:
        await open_target(url)
    text = f"{caught.value!r} {caught.value} {caught.value.hint} {caught.value.as_json()} {caught.value.__cause__!r}"
    assert "SignatureDoesNotMatch" in text
    assert "secret key" in caught.value.hint
    assert secret not in text and keys.access_key not in text


async def test_an_unknown_access_id(keys, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    with pytest.raises(UnreachableError) as caught:
        await open_target(keys.url("p"))
    assert caught.value.hint


async def test_keys_in_the_url(keys, monkeypatch, base):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    target = await open_target(keys.url(base, keys=True))
    await target.put("f", b"x")
    assert await target.get("f") == b"x"
    await target.aclose()
    for text in (repr(target), target.url, repr(target.destination)):
        assert keys.access_key not in text and keys.access_id not in text


async def test_no_credentials(keys, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="no usable credentials") as caught:
        await open_target(keys.url("p"))
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


async def test_a_bucket_that_does_not_exist(keys):
    with pytest.raises(ConfigError, match="bucket does not exist") as caught:
        await open_target(keys.url("p", bucket="nothere"))
    assert "create the bucket" in caught.value.hint


async def test_use_after_close(keys):
    target = await open_target(keys.url("p"))
    await target.aclose()
    await target.aclose()
    with pytest.raises(TargetError):
        await target.get("f")


async def test_more_parts_than_the_store_takes(store):
    from dataclasses import replace

    store._client.profile = replace(store._client.profile, max_parts=2)
    writer = await store.create("f")
    with pytest.raises(TargetError, match="more than the 2 parts"):
        for _ in range(20):
            await writer.write(BytesPart(bytes(5 * MIB)))
    await writer.abort()


CRASH = """
import asyncio, os, signal, sys
from mover.target.base import BytesPart
from mover.target import s3_client
from mover.target.url import open_target

step, url = int(sys.argv[1]), sys.argv[2]
real, seen = s3_client.S3Client.call, [0]

async def call(self, *args, **kwargs):
    # Dies while the request is on its way: half of the steps at once, half when the server has it.
    seen[0] += 1
    if seen[0] == step // 2:
        if step % 2:
            task = asyncio.ensure_future(real(self, *args, **kwargs))
            for _ in range(40):
                await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGKILL)
    return await real(self, *args, **kwargs)

async def main():
    target = await open_target(url)
    s3_client.S3Client.call = call
    await target.put("small", b"s" * 1000)
    writer = await target.create("large")
    for n in range(3):
        await writer.write(BytesPart(bytes([n]) * (5 << 20)))
    await writer.commit()
    await target.put("new", b"n" * 1000, if_absent=True)
    print("finished")
    await target.aclose()

asyncio.run(main())
"""


async def test_kill_9_at_every_step_publishes_nothing_partial(keys, base):
    whole = {"small": b"s" * 1000, "large": PARTS, "new": b"n" * 1000}
    environment = {**os.environ, **keys.environment}
    for step in (3, 6, 9, 12, 15, 18, 100):
        url = keys.url(f"{base}/{step}", profile="seaweedfs")
        command = [sys.executable, "-c", CRASH, str(step), url]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == (0 if step == 100 else -signal.SIGKILL), done.stderr
        target = await open_target(url)
        found = [info.path async for info in target.list("")]
        for path in found:
            assert await target.get(path) == whole[path]
        if step == 100:
            assert found == sorted(whole)
        await target.aclose()


async def test_missing_is_told_from_refused(store):
    with pytest.raises(TargetNotFound):
        await store.get("none")
    assert await store.stat("none") is None
