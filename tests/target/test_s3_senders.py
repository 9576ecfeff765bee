"""What both senders promise of one attempt, where a server alone is not enough: peers that stall, TLS, probes."""

import asyncio
import mmap
import os
import socket
import ssl
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import pytest
from fault_proxy import FaultProxy
from lent import LentPart
from tls_relay import ConnectProxy, TlsRelay, old_server

from mover.clock import SystemClock
from mover.errors import ConfigError, TargetError, UnreachableError
from mover.target import s3_client
from mover.target.base import BytesPart
from mover.target.s3 import S3Target
from mover.target.s3_wire import Attempt
from mover.target.url import parse_url

MIB = 1 << 20
both = pytest.mark.parametrize("sender", ["fast", "aiobotocore"])


class ImpatientClock(SystemClock):
    def __init__(self):
        self.waits = []

    async def sleep(self, seconds):
        self.waits.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def proxy(keys):
    async with FaultProxy(keys.endpoint) as running:
        yield running


@asynccontextmanager
async def opened(url, attempts=4, look=True):
    target = S3Target(parse_url(url), clock=ImpatientClock(), attempts=attempts)
    try:
        await (target.open() if look else target._client.open())
        yield target
    finally:
        await target.aclose()


@pytest.fixture
def silent(monkeypatch):
    """The URL of a peer that accepts, reads nothing and never answers."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"s3://bucket/p?endpoint=http://127.0.0.1:{listener.getsockname()[1]}&profile=seaweedfs"


@both
async def test_a_peer_that_never_answers_has_a_deadline(silent, sender, monkeypatch):
    monkeypatch.setattr(s3_client, "ATTEMPT_SECONDS", 0.2)
    monkeypatch.setattr(s3_client, "SLOWEST_BYTES_PER_SECOND", 1 << 30)
    async with opened(f"{silent}&sender={sender}", attempts=2, look=False) as target:
        # The library leaves a connection open that can not be flushed; ours is shut down.
        for content in (b"x", bytes(32 * MIB) if sender == "fast" else b"y"):
            with pytest.raises(UnreachableError, match="no answer in time"):
                await target.put("f", content)


async def test_a_read_of_nobody_knows_how_much_does_not_wait_for_hours_for_its_first_byte(silent, monkeypatch):
    monkeypatch.setattr(s3_client, "ATTEMPT_SECONDS", 0.2)  # and the time for a body as it is
    async with opened(silent, attempts=2, look=False) as target:
        async with asyncio.timeout(20):
            for read in (target.get("f"), target.read_into("f", 0, memoryview(bytearray(4 * MIB)))):
                with pytest.raises(UnreachableError, match="no answer in time"):
                    await read


async def test_memory_is_free_when_a_cancelled_call_returns(silent, monkeypatch):
    made = []

    class Watched(Attempt):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setattr("mover.target.s3_fast.Attempt", Watched)
    memory = memoryview(mmap.mmap(-1, 32 * MIB))
    async with opened(silent, look=False) as target:
        for start in (target.put, lambda path, buffer: target.read_into(path, 0, buffer)):
            made.clear()
            task = asyncio.create_task(start("f", memory))
            await _until(lambda: made and made[0]._holds)
            begin = time.monotonic()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert not made[0]._holds
            assert time.monotonic() - begin < 5


@both
async def test_parts_come_back_from_a_peer_that_hangs(keys, proxy, base, sender, monkeypatch):
    monkeypatch.setattr("mover.target.s3_writer.ABORT_SECONDS", 0.2)
    async with opened(keys.url(base, endpoint=proxy.endpoint, profile="seaweedfs", sender=sender)) as target:
        proxy.fault("hang", "PUT", times=1000)
        writer = await target.create("f")
        parts = [LentPart(bytes(5 * MIB)) for _ in range(3)]
        for part in parts:
            await writer.write(part)
        await writer.abort()
        assert [part.releases for part in parts] == [1, 1, 1]


@both
async def test_a_store_that_asks_for_time_gets_it(keys, proxy, base, sender):
    async with opened(keys.url(base, endpoint=proxy.endpoint, profile="seaweedfs", sender=sender)) as target:
        proxy.fault("retry-after", "PUT")
        await target.put("f", b"content")
        assert await target.get("f") == b"content"
        assert target.retries == 1
        assert target._client._clock.waits == [7.0]
        assert target._client.slots.limit == 2  # of four


@both
@pytest.mark.parametrize("size", [10, 6 * MIB])
async def test_a_connection_that_breaks_in_the_middle_of_a_body(keys, proxy, base, sender, size):
    content = os.urandom(size)
    async with opened(keys.url(base, endpoint=proxy.endpoint, profile="seaweedfs", sender=sender)) as target:
        proxy.fault("drop", "PUT", times=2)
        writer = await target.create("f")
        await writer.write(BytesPart(content))
        await writer.commit()
        assert await target.get("f") == content


async def test_a_kept_connection_that_was_closed_is_no_failure(keys, proxy, base):
    async with opened(keys.url(base, endpoint=proxy.endpoint, profile="seaweedfs")) as target:
        for number in range(3):
            await target.put(f"{number}", b"content")
            # Without a word in one turn, in the middle of the next request in another.
            if number == 1:
                proxy.fault("reset", "PUT")
            for connection in list(proxy._runner.server.connections):
                if number != 1 and connection.transport is not None:
                    connection.transport.close()
            await asyncio.sleep(0)
        await target.put("last", b"content")
        assert target.retries == 0


@both
@pytest.mark.parametrize("believes", [True, False])
async def test_a_generic_store_is_tried_with_a_wrong_checksum(keys, proxy, base, sender, believes):
    async with opened(keys.url(base, endpoint=proxy.endpoint, sender=sender)) as target:
        if believes:
            proxy.fault("nods", "PUT", "probe-")
        for name in ("f", "g"):
            writer = await target.create(name)
            for _ in range(2):
                await writer.write(BytesPart(bytes(5 * MIB)))
            await writer.commit()
        assert (await target._client.confirmation()).name == ("md5" if believes else "crc32c")
        assert proxy.count("PUT", "probe-") == 2  # of MD5 the ETag tells
        assert [info.path async for info in target.list("")] == ["f", "g"]


@both
@pytest.mark.parametrize("way", ["crc32c", "md5", "read-back"])
@pytest.mark.parametrize("count", [1, 3])
async def test_damage_on_the_way_is_never_published(keys, proxy, base, sender, way, count):
    url = keys.url(base, endpoint=proxy.endpoint, profile="seaweedfs", sender=sender, confirm=way)
    async with opened(url) as target:
        for damaged in (False, True):
            if damaged:
                proxy.fault("damage", "PUT", times=1000)
            writer = await target.create(f"{damaged}")
            try:
                for number in range(count):
                    # All of a small last part is read back; a sample of a large one may miss a bit.
                    await writer.write(BytesPart(bytes(5 * MIB if number < count - 1 else 1000)))
                await writer.commit()
                assert not damaged
            except TargetError:
                assert damaged
            await writer.abort()
        assert await target.stat("False") is not None
        if way != "read-back" or count > 1:
            assert await target.stat("True") is None


async def test_a_store_that_tells_no_crc64(keys, base):
    async with opened(keys.url(base, profile="seaweedfs", confirm="crc64")) as target:
        writer = await target.create("f")
        await writer.write(BytesPart(b"content"))
        with pytest.raises(TargetError, match="told no CRC-64"):
            await writer.commit()
        await writer.abort()


@pytest.mark.parametrize(
    "options",
    [{"payload": "signed"}, {"payload": "signed", "sender": "aiobotocore"}, {"signature": "s3"}],
    ids=["signed", "signed-aiobotocore", "v2"],
)
async def test_signatures(keys, base, options):
    async with opened(keys.url(f"{base}/a b+c%", profile="seaweedfs", **options)) as target:
        await target.put("dir x/f+1", b"content", if_absent=True)
        assert [info.path async for info in target.list("dir x/")] == ["dir x/f+1"]
        writer = await target.create("g")
        for _ in range(2):
            await writer.write(BytesPart(bytes(5 * MIB)))
        await writer.commit()
        assert len(await target.get("g", 5 * MIB)) == 5 * MIB


@both
async def test_tls(keys, base, sender, tmp_path, monkeypatch):
    content = os.urandom(11 * MIB)
    async with TlsRelay(tmp_path, keys.endpoint) as relay:
        url = keys.url(base, endpoint=relay.endpoint, profile="seaweedfs", sender=sender)
        with pytest.raises(UnreachableError, match="TLS could not be set up"):
            async with opened(url):
                pass
        monkeypatch.setenv("AWS_CA_BUNDLE", str(relay.certificate))
        async with opened(url) as target:
            writer = await target.create("f")
            for at in (0, 6 * MIB):
                await writer.write(BytesPart(content[at : at + 6 * MIB]))
            await writer.commit()
            buffer = memoryview(bytearray(len(content)))
            await target.read_into("f", 0, buffer)
            assert buffer == content
            task = asyncio.create_task(target.read_into("f", 0, buffer))
            await asyncio.sleep(0.005)  # not a wait for something: into the middle of it
            task.cancel()
            await asyncio.wait([task])


@both
@pytest.mark.parametrize(
    ("server", "options", "words", "hint"),
    [
        ({"days": -1}, {}, "has expired", "renew"),
        ({"names": "DNS:elsewhere.invalid"}, {}, "for another host", "endpoint="),
        ({}, {"ca": None}, "authority that is not trusted", "ca=FILE"),
    ],
    ids=["expired", "wrong-host", "unknown-authority"],
)
async def test_a_handshake_that_must_fail(keys, base, sender, tmp_path, server, options, words, hint):
    """Once, with the reason: another try would find the same."""
    async with TlsRelay(tmp_path, keys.endpoint, **server) as relay:
        options = {"ca": relay.certificate, **options}
        options = {name: value for name, value in options.items() if value is not None}
        await refused(
            keys.url(base, endpoint=relay.endpoint, profile="seaweedfs", sender=sender, **options), words, hint
        )


@both
@pytest.mark.parametrize(("speaks", "least"), [("TLSv1_1", "1.2"), ("TLSv1_2", "1.3")])
async def test_a_protocol_that_is_too_old(base, keys, sender, tmp_path, speaks, least):
    async with TlsRelay(tmp_path, keys.endpoint) as relay:
        with old_server(relay, ssl.TLSVersion[speaks]) as endpoint:
            options = {"ca": relay.certificate, "tls": least, "profile": "seaweedfs", "sender": sender}
            await refused(keys.url(base, endpoint=endpoint, **options), "no version of TLS", "upgrade")


async def refused(url, words, hint):
    target = S3Target(parse_url(url), clock=ImpatientClock())
    try:
        with pytest.raises(UnreachableError, match=f"TLS could not be set up: .*{words}") as caught:
            await target.open()
    finally:
        await target.aclose()
    assert hint in caught.value.hint
    assert target.retries == 0


@both
@pytest.mark.parametrize("directory", [False, True])
async def test_an_authority_of_ones_own_and_a_newer_protocol(keys, base, sender, tmp_path, directory):
    async with TlsRelay(tmp_path / "made", keys.endpoint) as relay:
        ca = tmp_path / "trusted" if directory else relay.certificate
        if directory:
            ca.mkdir()
            command = ["openssl", "x509", "-in", str(relay.certificate), "-noout", "-hash"]
            name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            (ca / f"{name}.0").write_bytes(relay.certificate.read_bytes())
        url = keys.url(base, endpoint=relay.endpoint, profile="seaweedfs", sender=sender, ca=ca, tls="1.3")
        if directory and sender == "aiobotocore":
            return  # the library takes files only
        async with opened(url) as target:
            await target.put("f", b"content")


@pytest.mark.parametrize("file", ["missing", "empty"])
async def test_an_authority_that_can_not_be_read(keys, base, tmp_path, file):
    (tmp_path / "empty").write_text("")
    url = keys.url(base, endpoint="https://127.0.0.1:1", profile="seaweedfs", ca=tmp_path / file)
    with pytest.raises(ConfigError, match="can not be read") as caught:
        async with opened(url):
            pass
    assert str(tmp_path / file) in caught.value.message


async def test_a_server_without_tls(keys, base):
    url = keys.url(base, endpoint=keys.endpoint.replace("http:", "https:"), profile="seaweedfs")
    with pytest.raises(UnreachableError, match="does not speak TLS"):
        async with opened(url):
            pass


async def test_a_proxy_in_the_environment(keys, proxy, base, monkeypatch):
    """Plain HTTP goes to a proxy with the whole address; who is named in NO_PROXY is reached without it."""
    url = keys.url(base, profile="seaweedfs")
    monkeypatch.setenv("http_proxy", f"http://user:hidden@127.0.0.1:{_closed_port()}")
    monkeypatch.setenv("no_proxy", "elsewhere.invalid")
    with pytest.raises(UnreachableError, match="no connection to the proxy") as caught:
        async with opened(url):
            pass
    assert "hidden" not in f"{caught.value!r} {caught.value.as_json()}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with opened(url) as target:
        await target.put("f", b"content")


@pytest.mark.parametrize("proxy", ["https://user:hidden@h:1", "socks5://user:hidden@h", "user:hid/den@h:1", "http://"])
async def test_a_proxy_that_can_not_be_used(keys, base, monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "elsewhere.invalid")
    with pytest.raises(ConfigError, match="the proxy in the environment") as caught:
        async with opened(keys.url(base, profile="seaweedfs")):
            pass
    assert "HTTPS_PROXY" in caught.value.hint
    assert "hid" not in f"{caught.value!r} {caught.value.as_json()}"


@both
async def test_tls_through_a_proxy_that_wants_a_password(keys, base, sender, tmp_path, monkeypatch):
    async with TlsRelay(tmp_path, keys.endpoint) as relay, ConnectProxy() as between:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(relay.certificate))
        monkeypatch.setenv("https_proxy", f"http://user:p%40ss@{between.address}")
        monkeypatch.setenv("no_proxy", "elsewhere.invalid")
        url = keys.url(base, endpoint=relay.endpoint, profile="seaweedfs", sender=sender)
        async with opened(url) as target:
            await target.put("f", b"content")
            assert await target.get("f") == b"content"
        assert set(between.asked) == {f"CONNECT {relay.endpoint.removeprefix('https://')}"}
        monkeypatch.setenv("https_proxy", f"http://user:wrong@{between.address}")
        with pytest.raises(
            UnreachableError, match="the proxy refused" if sender == "fast" else "through the proxy"
        ) as caught:
            async with opened(url):
                pass
        assert "wrong" not in f"{caught.value!r} {caught.value.as_json()}"


async def _until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def _closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_fast_sender_loads_no_library_client(keys, base):
    code = f"""
import asyncio, sys
from mover.target.url import open_target
async def main():
    target = await open_target({keys.url(base, profile="seaweedfs")!r})
    await target.put("f", b"x")
    await target.aclose()
asyncio.run(main())
print([name for name in ("aiohttp", "aiobotocore", "botocore.client", "botocore.loaders") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['botocore.client', 'botocore.loaders']")
