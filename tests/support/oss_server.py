"""An object store for tests, with the rules of Alibaba Cloud's OSS or another's, as a peer on the network.

``with oss_server() as store:`` gives the interface of tests/support/weed.py: ``store.endpoint``, ``store.environment``,
``store.url("prefix")``, ``store.client()``. It holds everything in memory, checks every signature, and refuses what OSS
refuses; :mod:`oss_rules` says what that is. ``store.misbehave(kind, method, where, times)`` makes answers go wrong:

before anything is done: ``slow-down``, ``429``, ``retry-after``, ``internal`` (500), ``error-200``, ``empty-200``,
``silent`` (accepts and never answers), ``reset``, ``refused`` (403), ``absent`` (404);
after it was done: ``lost`` (no answer), ``done-but-500``, ``other-etag``, ``other-crc64``, ``other-crc32c``,
``no-etag``;
instead of it: ``damage`` (a flipped bit is stored, and the answer speaks of that), ``swallow`` (says yes and keeps
nothing), ``truncate`` (a byte less is stored).
"""

import asyncio
import hashlib
import os
import re
import secrets
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import quote, unquote

import oss_words as words
import pytest
from aiohttp import web
from oss_bucket import Bucket
from oss_rules import OSS
from oss_verify import Refused, pairs, verify

_KEPT = ("content-type", "x-amz-meta-", "x-amz-server-side-encryption", "x-amz-storage-class", "x-amz-tagging")
_LOCK = "x-amz-object-lock-"
_STORAGE_CLASSES = ("STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "IA")


@dataclass
class Misdeed:
    kind: str
    method: str
    where: str
    times: int

    def takes(self, request):
        return self.times > 0 and request.method == self.method and self.where in request.raw_path


class ObjectStore:
    """One server, in a thread of its own. Its buckets may be looked at while nothing is under way."""

    bucket = "mover"

    def __init__(self, rules=OSS):
        self.rules = rules
        self.access_id = "OSSACCESSID"
        self.access_key = "secret/" + secrets.token_hex(12) + "+="
        self.keys = {self.access_id: self.access_key}
        self.buckets = {name: Bucket(name, rules) for name in (self.bucket, "cname-bucket")}
        self.cnames = {"127.0.0.1": "cname-bucket"}  # a domain of its own for a bucket, as new users of OSS must have
        self.misdeeds = []
        self.seen = []  # "METHOD raw-path" of every request
        self.headers = []  # and its headers, lower-case names
        self.expected_continue = 0
        self.port = 0

    def of(self, method, where=""):
        """The headers of each request that was seen."""
        lines = zip(self.seen, self.headers, strict=True)
        return [headers for line, headers in lines if line.startswith(f"{method} ") and where in line]

    @property
    def objects(self):
        return self.buckets[self.bucket].objects

    @property
    def endpoint(self):
        return f"http://localhost:{self.port}"

    @property
    def environment(self):
        nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        keys = {"AWS_ACCESS_KEY_ID": self.access_id, "AWS_SECRET_ACCESS_KEY": self.access_key}
        return {**keys, "AWS_EC2_METADATA_DISABLED": "true", **nothing}

    def url(self, prefix="", *, scheme=None, bucket=None, **options):
        query = {"endpoint": self.endpoint, "region": self.rules.regions[0], **options}
        text = "&".join(f"{key}={quote(str(value), safe=':/')}" for key, value in query.items())
        scheme = scheme or ("oss" if self.rules.dialect == "oss" else "s3")
        return f"{scheme}://{bucket or self.bucket}/{quote(prefix)}?{text}"

    def client(self):
        """Looks at the buckets in the way of botocore's client, as far as the conformance suite asks."""
        return _Look(self)

    def misbehave(self, kind, method="PUT", where="", times=1):
        self.misdeeds.append(Misdeed(kind, method, where, times))

    def count(self, method, where=""):
        return sum(1 for line in self.seen if line.startswith(f"{method} ") and where in line)

    def start(self):
        started = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def serve():
            self._released = asyncio.Event()
            runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
            await runner.setup()
            listener = socket.create_server(("127.0.0.1", 0))
            await web.SockSite(runner, listener).start()
            self.port = listener.getsockname()[1]
            self._stopping = asyncio.Event()
            started.set()
            await self._stopping.wait()
            self._released.set()
            await runner.cleanup()

        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(serve()), daemon=True)
        self._thread.start()
        assert started.wait(20)

    def stop(self):
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(20)
        self._loop.close()

    async def _handle(self, request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(f"{request.method} {request.raw_path}")
        self.headers.append(headers)
        self.expected_continue += "expect" in headers
        misdeed = next((each for each in self.misdeeds if each.takes(request)), None)
        kind = ""
        if misdeed is not None:
            misdeed.times -= 1
            kind = misdeed.kind
        if kind == "silent":
            await self._released.wait()
        body = await request.content.read()
        if kind in ("silent", "reset"):
            request.transport.abort()
            return web.Response()
        try:
            answer = self._before(kind) or self._checked(request, headers, body, kind)
        except Refused as refused:
            answer = self._refusal(request, refused)
        if kind == "lost":
            request.transport.abort()
        if kind == "done-but-500":
            answer = _xml(words.error("InternalError", "try again"), 500)
        return _spoiled(answer, kind)

    def _before(self, kind):
        if kind == "retry-after":
            return web.Response(status=503, headers={"Retry-After": "7"})
        if kind == "empty-200":
            return web.Response()
        if kind == "error-200":
            return _xml(words.error("InternalError", "try again"))
        codes = {"slow-down": (503, "SlowDown"), "429": (429, "TooManyRequests"), "internal": (500, "InternalError")}
        if kind in codes:
            return _xml(words.error(codes[kind][1], "later"), codes[kind][0])
        if kind == "absent":
            raise Refused(404, "NoSuchKey")
        if kind == "refused":
            raise Refused(403, "AccessDenied", "no right to do that")
        return None

    def _refusal(self, request, refused):
        headers = {"x-oss-request-id": "0123456789ABCDEF", **refused.more.get("headers", {})}
        more = {name: value for name, value in refused.more.items() if name != "headers"}
        if request.method == "HEAD":
            return web.Response(status=refused.status, headers=headers)
        return _xml(words.error(refused.code, refused.message, **more), refused.status, headers)

    def _checked(self, request, headers, body, kind):
        """The request is let in, or Refused says why not."""
        raw, _, query = request.raw_path.partition("?")
        if not raw.startswith("/"):  # as a proxy is asked: the whole address
            raw = "/" + raw.split("://", 1)[1].partition("/")[2]
        host = headers.get("host", "").partition(":")[0]
        name, path = self._bucket_of(host, raw)
        if "expect" in headers and not self.rules.expect:
            raise Refused(417, "ExpectationFailed", "Expect is not supported")
        payload = headers.get("x-amz-content-sha256", "")
        chunked = "aws-chunked" in headers.get("content-encoding", "") or payload.startswith("STREAMING-")
        if (chunked or "x-amz-trailer" in headers) and not self.rules.chunked:
            message = "aws-chunked encoding is not supported with the specified x-amz-content-sha256 value."
            raise Refused(400, "InvalidArgument", message, EC="0017-00000804")
        verify(request.method, raw, query, headers, f"/{name}{path}", self.keys, self.rules, body)
        bucket = self.buckets.get(name)
        if bucket is None:
            raise Refused(404, "NoSuchBucket", "the specified bucket does not exist")
        _digests(headers, body, self.rules)
        if kind == "damage" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        if kind == "truncate":
            body = body[:-1]
        if kind == "swallow":
            etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
            return web.Response(headers={"ETag": f'"{etag}"', "Date": formatdate(usegmt=True)})
        asked = dict(pairs(query))
        key = unquote(path[1:])
        if len(key.encode()) > 1023:
            raise Refused(400, "InvalidObjectName", "the key is too long")
        if len(body) > self.rules.object_most:
            raise Refused(400, "EntityTooLarge")
        place = "object" if key else "bucket"
        verb = next((name for name in _VERBS if name in asked), "")
        handler = getattr(self, f"_{place}_{request.method.lower()}{_VERBS.get(verb, '')}", None)
        if handler is None:
            raise Refused(501, "NotImplemented", f"{request.method} {place} {verb}")
        return handler(bucket, key, asked, headers, body)

    def _bucket_of(self, host, raw):
        name, dot, rest = host.rpartition(".localhost")
        if dot and not rest:
            return name, raw
        if host in self.cnames and not self.rules.path_style:
            return self.cnames[host], raw
        if not self.rules.path_style:
            message = "the bucket you are attempting to access must be addressed using OSS third level domain."
            raise Refused(403, "SecondLevelDomainForbidden", message)
        name, _, path = raw[1:].partition("/")
        return unquote(name), f"/{path}"

    def _bucket_get(self, bucket, _key, asked, _headers, _body):
        most = int(asked.get("max-keys", 100 if self.rules.dialect == "oss" else 1000))
        prefix, token = asked.get("prefix", ""), asked.get("continuation-token", "")
        after = words.decoded(token).decode() if token else asked.get("start-after", "")
        keys, more = bucket.page(prefix, after, most)
        following = words.encoded(keys[-1].encode()) if keys else ""
        found = [(key, bucket.objects[key]) for key in keys]
        url = asked.get("encoding-type") == "url"
        return _xml(words.listing(bucket.name, prefix, found, more, most, following, url))

    def _bucket_get_uploads(self, bucket, _key, asked, _headers, _body):
        marker = (asked.get("key-marker", ""), asked.get("upload-id-marker", ""))
        found = sorted(bucket.uploads.values(), key=lambda each: (each.key, each.upload_id))
        found = [each for each in found if each.key.startswith(asked.get("prefix", ""))]
        found = [each for each in found if not marker[0] or (each.key, each.upload_id) > marker]
        most = min(int(asked.get("max-uploads", 1000)), self.rules.list_most)
        return _xml(words.uploads(bucket.name, found[:most], len(found) > most))

    def _bucket_get_lock(self, _bucket, _key, _asked, _headers, _body):
        if not self.rules.lock:
            raise Refused(404, "ObjectLockConfigurationNotFoundError", "the bucket has no object lock")
        return _xml(words.tag("ObjectLockConfiguration", words.texts(ObjectLockEnabled="Enabled")))

    def _bucket_post_delete(self, bucket, _key, _asked, headers, body):
        if not self.rules.delete_objects:
            raise Refused(501, "NotImplemented", "DeleteObjects")
        if "content-md5" not in headers and self.rules.delete_needs_md5:
            raise Refused(400, "MissingArgument", "Missing Some Required Arguments.", EC="0016-00000606")
        try:
            asked = words.read(body, "Object", "Key", "VersionId")
        except ValueError as error:
            raise Refused(400, "MalformedXML") from error
        if not 0 < len(asked) <= self.rules.delete_most:
            raise Refused(400, "MalformedXML", f"one to {self.rules.delete_most} keys")
        said = []
        quiet = "true" in words.texts_of(body, "Quiet")
        for key, version in asked:
            wrong = next((each for each in self.misdeeds if each.kind == "key" and each.where in key), None)
            if wrong is not None and wrong.times > 0:
                wrong.times -= 1
                said.append(words.tag("Error", words.texts(Key=key, Code=wrong.method, Message="not this one")))
                continue
            try:
                bucket.delete(key, version or None)
            except Refused as error:
                said.append(words.tag("Error", words.texts(Key=key, Code=error.code, Message=error.message)))
            else:
                said += [] if quiet else [words.tag("Deleted", words.texts(Key=key))]
        return _xml(words.tag("DeleteResult", *said))

    def _object_put(self, bucket, key, _asked, headers, body):
        kept = self._kept(headers, "PUT")
        told = self.rules.crc32c and "x-amz-checksum-crc32c" in headers
        crc32c = words.encoded(words.crc32c_of(body)) if told else ""
        stored = bucket.put(key, body, kept, headers, crc32c)
        return web.Response(headers=self._said(stored))

    def _object_put_part(self, bucket, key, asked, headers, body):
        checksum = headers.get("x-amz-checksum-crc32c", "") if self.rules.crc32c else ""
        etag = bucket.part(key, asked.get("uploadId", ""), int(asked["partNumber"]), body, checksum)
        more = {"x-amz-checksum-crc32c": words.encoded(words.crc32c_of(body))} if checksum else {}
        if self.rules.crc64:
            from mover.kernel import crc64_xz

            more["x-oss-hash-crc64ecma"] = str(crc64_xz(body))
        return web.Response(headers={"ETag": f'"{etag}"', **more})

    def _object_post_uploads(self, bucket, key, _asked, headers, _body):
        upload = bucket.begin(key, self._kept(headers, "POST"), headers)
        document = words.texts(Bucket=bucket.name, Key=key, UploadId=upload.upload_id)
        said = {name: value for name, value in upload.kept.items() if name.startswith("x-amz-server-side-")}
        return _xml(words.tag("InitiateMultipartUploadResult", document), 200, said)

    def _object_post_complete(self, bucket, key, asked, headers, body):
        listed = [
            (int(number), etag, checksum)
            for number, etag, checksum in words.read(body, "Part", "PartNumber", "ETag", "ChecksumCRC32C")
        ]
        stored = bucket.complete(key, asked["uploadId"], listed, headers)
        document = words.texts(Bucket=bucket.name, Key=key, ETag=f'"{stored.etag}"')
        if stored.crc32c:
            document += words.texts(ChecksumCRC32C=stored.crc32c)
        said = {name: value for name, value in self._said(stored).items() if name.startswith("x-")}
        return _xml(words.tag("CompleteMultipartUploadResult", document), 200, said)

    def _object_post_append(self, bucket, key, asked, _headers, body):
        if not self.rules.append:
            raise Refused(501, "NotImplemented")
        stored = bucket.append(key, body, int(asked.get("position", -1)))
        return web.Response(headers={**self._said(stored), "x-oss-next-append-position": str(len(stored.data))})

    def _object_delete_complete(self, bucket, key, asked, _headers, _body):
        bucket.upload(key, asked["uploadId"])
        del bucket.uploads[asked["uploadId"]]
        return web.Response(status=204)

    def _object_delete(self, bucket, key, asked, _headers, _body):
        bucket.delete(key, asked.get("versionId"))
        return web.Response(status=204)

    def _object_head(self, bucket, key, asked, headers, _body):
        stored = self._looked_at(bucket, key, asked, headers)
        modified = {"Last-Modified": formatdate(stored.modified, usegmt=True), "Content-Length": str(len(stored.data))}
        return web.Response(headers={**self._said(stored), **self._shown(stored), **modified})

    def _object_get(self, bucket, key, asked, headers, _body):
        stored = self._looked_at(bucket, key, asked, headers)
        said = {**self._said(stored), **self._shown(stored)}
        said["Last-Modified"] = formatdate(stored.modified, usegmt=True)
        size = len(stored.data)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        if found is None:
            return web.Response(body=stored.data, headers=said)
        start, end = int(found[1]), min(int(found[2] or size - 1), size - 1)
        # OSS answers a range that is not all in the object with all of the object, unless it is asked to behave.
        beyond = start >= size or int(found[2] or 0) >= size
        if beyond and self.rules.dialect == "oss" and headers.get("x-oss-range-behavior") != "standard":
            return web.Response(body=stored.data, headers=said)
        if start >= size:
            raise Refused(416, "InvalidRange", "the range can not be", headers={"Content-Range": f"bytes */{size}"})
        said["Content-Range"] = f"bytes {start}-{end}/{size}"
        return web.Response(status=206, body=stored.data[start : end + 1], headers=said)

    def _looked_at(self, bucket, key, asked, headers):
        stored = bucket.find(key, asked.get("versionId"))
        if "if-match" in headers and headers["if-match"].strip('"') != stored.etag:
            raise Refused(412, "PreconditionFailed")
        return stored

    def _kept(self, headers, method):
        """What an object is stored with. Refused for options that the store does not have."""
        kept = {name: value for name, value in headers.items() if name.startswith((*_KEPT, _LOCK))}
        if not self.rules.metadata:
            kept = {name: value for name, value in kept.items() if not name.startswith("x-amz-meta-")}
        if self.rules.deaf:
            return {name: value for name, value in kept.items() if name.startswith("x-amz-meta-")}
        sse, key_id = kept.get("x-amz-server-side-encryption"), "x-amz-server-side-encryption-aws-kms-key-id"
        if sse not in (None, "AES256", "aws:kms") or (key_id in kept and sse != "aws:kms"):
            raise Refused(400, "InvalidArgument", "the encryption is not one")
        if kept.get("x-amz-storage-class", "STANDARD") not in _STORAGE_CLASSES:
            raise Refused(400, "InvalidStorageClass")
        until = kept.get(f"{_LOCK}retain-until-date")
        if (until is None) != (kept.get(f"{_LOCK}mode") is None):
            raise Refused(400, "InvalidArgument", "mode and date of a lock belong together")
        if until is not None and not self.rules.lock:
            raise Refused(400, "InvalidRequest", "Bucket is missing Object Lock Configuration")
        digest = "content-md5" in headers or "x-amz-checksum-crc32c" in headers
        if until is not None and not digest and method == "PUT":
            message = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock"
            raise Refused(400, "InvalidRequest", message)
        return kept

    def _said(self, stored):
        said = {"ETag": f'"{stored.etag}"', "x-oss-request-id": "0123456789ABCDEF"}
        if self.rules.crc64:
            said["x-oss-hash-crc64ecma"] = str(stored.crc64)
        if self.rules.versions:
            said["x-amz-version-id"] = stored.version
        if stored.crc32c and self.rules.crc32c:
            said["x-amz-checksum-crc32c"] = stored.crc32c
        return said | {name: stored.kept[name] for name in stored.kept if name.startswith("x-amz-server-side-")}

    def _shown(self, stored):
        hidden = ("x-amz-tagging",)
        kind = {"x-oss-object-type": stored.kind} if self.rules.dialect == "oss" else {}
        return {name: value for name, value in stored.kept.items() if name not in hidden} | kind


_VERBS = {
    "object-lock": "_lock",
    "uploads": "_uploads",
    "delete": "_delete",
    "append": "_append",
    "partNumber": "_part",
    "uploadId": "_complete",
}


class _Look:
    def __init__(self, store):
        self._store = store

    def list_multipart_uploads(self, Bucket):
        return {"Uploads": [{"Key": each.key} for each in list(self._store.buckets[Bucket].uploads.values())]}

    def close(self):
        pass


def _digests(headers, body, rules):
    """What the client says of the body must be so."""
    if "content-md5" in headers and rules.md5:
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        try:
            right = words.decoded(headers["content-md5"]) == digest
        except ValueError as error:
            raise Refused(400, "InvalidDigest") from error
        if not right:
            code = "InvalidDigest" if rules.dialect == "oss" else "BadDigest"
            raise Refused(400, code, "the Content-MD5 you specified did not match what we received")
    said = headers.get("x-amz-checksum-crc32c")
    if said is not None and rules.crc32c and said != words.encoded(words.crc32c_of(body)):
        raise Refused(400, "BadDigest", "the CRC32C you specified did not match what we received")


def _spoiled(answer, kind):
    if kind == "other-etag":
        answer.headers["ETag"] = '"00000000000000000000000000000000"'
    elif kind == "other-crc64":
        answer.headers["x-oss-hash-crc64ecma"] = "1"
    elif kind == "other-crc32c":
        answer.headers["x-amz-checksum-crc32c"] = "AAAAAA=="
    elif kind == "no-etag":
        answer.headers.pop("ETag", None)
    return answer


def _xml(document, status=200, headers=None):
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'
    return web.Response(status=status, text=text, content_type="application/xml", headers=headers)


@contextmanager
def oss_server(rules=OSS):
    """A server that is ready; ended at the end, whatever happens."""
    store = ObjectStore(rules)
    store.start()
    try:
        yield store
    finally:
        store.stop()


@pytest.fixture(scope="session", autouse=True)
def localhosts():
    """``bucket.localhost`` is this machine (RFC 6761), also where the resolver does not know it."""
    ask = socket.getaddrinfo

    def answer(host, *arguments, **options):
        name = host.decode() if isinstance(host, bytes) else host
        return ask("127.0.0.1" if name and name.endswith(".localhost") else host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", answer)
        yield
