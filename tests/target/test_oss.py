"""``oss://`` against a store with OSS's rules: what it refuses, and that mover does none of it."""

import asyncio
import http.client
import os
from base64 import b64encode
from hashlib import md5

import botocore.config
import botocore.session
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from mover.errors import ConfigError, TargetError, TargetExists, UnreachableError
from mover.kernel import crc64_xz
from mover.target.base import BytesPart
from mover.target.url import open_target

MIB = 1 << 20
both = pytest.mark.parametrize("sender", ["fast", "aiobotocore"])


@pytest.fixture
def store(oss, monkeypatch):
    for name, value in oss.environment.items():
        monkeypatch.setenv(name, value)
    oss.misdeeds.clear()
    return oss


def library(store, addressing="virtual", **config):
    return botocore.session.Session().create_client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="oss-cn-test",
        config=botocore.config.Config(
            s3={"addressing_style": addressing}, retries={"total_max_attempts": 1}, connect_timeout=5, **config
        ),
    )


def refusal(call, **parameters):
    with pytest.raises(ClientError) as caught:
        call(Bucket="mover", **parameters)
    return caught.value.response["Error"]["Code"]


def test_the_store_refuses_what_oss_refuses(store):
    """With the library's defaults, so that the settings mover has are known to be needed."""
    plain, required = library(store), library(store, request_checksum_calculation="when_required")
    assert refusal(plain.put_object, Key="k", Body=b"x") in ("InvalidArgument", "417", "ExpectationFailed")
    assert refusal(library(store, "path").list_objects_v2) == "SecondLevelDomainForbidden"
    assert refusal(required.put_object, Key="k", Body=b"x") in ("417", "ExpectationFailed")
    required.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
    required.put_object(Bucket="mover", Key="k", Body=b"x")
    assert refusal(required.put_object, Key="k", Body=b"x", IfNoneMatch="*") == "NotImplemented"
    assert refusal(required.delete_objects, Delete={"Objects": [{"Key": "k"}]}) == "MissingArgument"
    assert refusal(required.put_object, Key="k" * 1024, Body=b"x") == "InvalidObjectName"
    upload = required.create_multipart_upload(Bucket="mover", Key="m")["UploadId"]
    part = {"Key": "m", "UploadId": upload}
    assert refusal(required.upload_part, PartNumber=10_001, Body=b"x", **part) == "InvalidArgument"
    parts = []
    for number in (1, 2):
        etag = required.upload_part(Bucket="mover", PartNumber=number, Body=b"x", **part)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    listed = {"MultipartUpload": {"Parts": parts}}
    assert refusal(required.complete_multipart_upload, **part, **listed) == "EntityTooSmall"
    assert refusal(required.complete_multipart_upload, Key="m", UploadId="other", **listed) == "NoSuchUpload"
    for client in (plain, required):
        client.close()


def test_every_signature_is_looked_at(store, monkeypatch):
    client = library(store)
    client.list_objects_v2(Bucket="mover")
    for version in ("s3v4", "s3"):
        library(store, signature_version=version).list_objects_v2(Bucket="mover", Prefix="a b/é&+")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    for version in ("s3v4", "s3"):
        wrong = library(store, signature_version=version)
        assert refusal(wrong.list_objects_v2) == "SignatureDoesNotMatch"
    connection = http.client.HTTPConnection("localhost", store.port, timeout=10)
    connection.request("GET", "/", headers={"Host": "mover.localhost"})
    answer = connection.getresponse()
    assert (answer.status, b"<Code>AccessDenied</Code>" in answer.read()) == (403, True)
    connection.close()


@both
@pytest.mark.parametrize("signature", ["s3v4", "s3"])
async def test_a_whole_life(store, base, sender, signature):
    target = await open_target(store.url(f"{base}/a b+c%", sender=sender, signature=signature))
    begun = len(store.headers)
    await target.put("small", b"x" * 100_000)
    await target.put("new", b"n", if_absent=True)
    with pytest.raises(TargetExists):
        await target.put("new", b"other", if_absent=True)
    content = os.urandom(5 * MIB)
    writer = await target.create("large")
    for at in range(0, len(content), 2 * MIB):
        await writer.write(BytesPart(content[at : at + 2 * MIB]))
    await writer.commit()
    assert await target.get("large") == content
    assert [info.path async for info in target.list("")] == ["large", "new", "small"]
    for path in ("large", "new", "small"):
        await target.delete(path)
    assert (await target._client.confirmation()).name == "crc64"
    await target.aclose()
    assert not any("expect" in headers or "x-amz-trailer" in headers for headers in store.headers[begun:])
    assert all(headers["host"] == f"mover.localhost:{store.port}" for headers in store.headers[begun:])


@both
async def test_a_name_that_was_taken_meanwhile(store, base, sender):
    """The look at the name before found nothing: the store itself must refuse."""
    target = await open_target(store.url(base, sender=sender))
    writer = await target.create("large")
    for _ in range(2):
        await writer.write(BytesPart(bytes(MIB)))
    store.misbehave("absent", "HEAD", "large")
    store.buckets["mover"].put(f"{base}/large", b"theirs", {}, {})
    with pytest.raises(TargetExists):
        await writer.commit()
    await writer.abort()
    assert store.objects[f"{base}/large"].data == b"theirs"
    for misdeed in store.misdeeds:
        assert misdeed.times == 0
    store.misbehave("absent", "HEAD", "large")
    with pytest.raises(TargetExists):
        await target.put("large", b"ours", if_absent=True)
    assert store.objects[f"{base}/large"].data == b"theirs"
    await target.aclose()


async def test_a_domain_of_the_bucket_itself(store, base):
    endpoint = f"http://127.0.0.1:{store.port}"
    url = store.url(base, endpoint=endpoint, bucket="cname-bucket", addressing="cname")
    for signature in ("s3v4", "s3"):
        target = await open_target(f"{url}&signature={signature}")
        await target.put("f", signature.encode())
        assert [info.path async for info in target.list("")] == ["f"]
        await target.aclose()
        assert store.buckets["cname-bucket"].objects[f"{base}/f"].data == signature.encode()
    with pytest.raises(ConfigError, match="own domain"):
        await open_target(f"{url}&sender=aiobotocore")


async def test_path_style_is_told(store):
    with pytest.raises(UnreachableError) as caught:
        await open_target(store.url("p", addressing="path"))
    assert "profile=oss" in caught.value.hint


def append(store, key, data, position):
    """AppendObject as its writer sends it: botocore has no name for it. Returns status, headers and body."""
    url = f"http://mover.localhost:{store.port}/{key}?append&position={position}"
    request = AWSRequest("POST", url, data=data, headers={"content-md5": b64encode(md5(data).digest()).decode()})
    S3SigV4Auth(Credentials(store.access_id, store.access_key), "s3", "oss-cn-test").add_auth(request)
    connection = http.client.HTTPConnection("mover.localhost", store.port, timeout=10)
    try:
        connection.request("POST", url.partition(str(store.port))[2], data, dict(request.headers.items()))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@both
async def test_an_object_that_was_appended_to_is_read_like_another(store, base, sender):
    """OceanBase 3.1 writes its log and data files by appending: their ETag is no MD5, and they are no multipart."""
    target = await open_target(store.url(base, sender=sender))
    key = f"{base}/log"
    for position, data in ((0, b"one"), (3, b"two")):
        status, headers, body = await asyncio.to_thread(append, store, key, data, position)
        assert status == 200, body
        assert (status, headers["x-oss-next-append-position"]) == (200, str(position + 3))
    assert headers["x-oss-hash-crc64ecma"] == str(crc64_xz(b"onetwo"))
    for position in (0, 5, 7):
        status, headers, body = await asyncio.to_thread(append, store, key, b"x", position)
        assert (status, headers["x-oss-next-append-position"]) == (409, "6")
        assert b"<Code>PositionNotEqualToLength</Code>" in body
    assert await target.get("log") == b"onetwo"
    assert await target.get("log", 3) == b"two"
    assert await target.get("log", 6) == b""
    for start, length in ((3, 4), (6, 1), (7, None)):
        with pytest.raises(TargetError, match="ends at 6"):
            await target.get("log", start, length)
    buffer = memoryview(bytearray(4))
    await target.read_into("log", 1, buffer)
    assert bytes(buffer) == b"netw"
    assert b"".join([piece async for piece in target.stream("log", chunk=2)]) == b"onetwo"
    found = await target.stat("log")
    assert found is not None and found.size == 6
    with pytest.raises(TargetExists):
        await target.put("log", b"x", if_absent=True)
    await target.put("whole", b"x")
    status, _, body = await asyncio.to_thread(append, store, f"{base}/whole", b"x", 1)
    assert (status, b"ObjectNotAppendable" in body) == (409, True)
    await target.delete("log")
    assert await target.stat("log") is None
    await target.aclose()


async def test_listings_in_pages(store, base):
    bucket = store.buckets["mover"]
    names = [f"{base}/dir/{n:04} é+&" for n in range(250)]
    for name in names:
        bucket.put(name, b"x", {}, {})
    target = await open_target(store.url(base))
    before = store.count("GET", "list-type=2")
    assert [f"{base}/{info.path}" async for info in target.list("dir/")] == names
    assert store.count("GET", "list-type=2") - before == 3  # of a hundred, where nobody says how many
    await target.aclose()
