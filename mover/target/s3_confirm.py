"""How an object store proves that it has what was sent: never by nothing, and the profile says which way.

* ``crc32c``: every body goes with its CRC-32C in a header; the store compares and must repeat it.
* ``crc64``: the store says the CRC-64 of what it has (OSS, COS), and it must be ours.
* ``md5``: every body goes with Content-MD5; the store compares, and its ETag must be that MD5 where ETags are.
* ``read-back``: some ranges of the object are read again and compared.

Where a profile names several, the first that the store passes a small test for is used (:func:`choose`).
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mover.errors import MoverError, TargetError
from mover.kernel import crc64_xz, crc64_xz_combine, ob_crc64, xxh3_128
from mover.target.profiles import Profile

if TYPE_CHECKING:
    from mover.target.s3_client import S3Client

_ALL = 0xFFFFFFFF
_MD5 = re.compile(r"[0-9a-f]{32}\Z")
_SAMPLE = 64 << 10
_SAMPLES = 16  # of an object
_REFUSED = ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch")
_CRC64_HEADERS = ("x-oss-hash-crc64ecma", "x-cos-hash-crc64ecma")


@dataclass(frozen=True, slots=True)
class Mark:
    """What is remembered of a body: ``value`` is for the confirmation that made it."""

    size: int
    value: Any


class Confirmation(Protocol):
    """One way. Its methods are pure but for ``reread``; ``mark`` reads the whole body and belongs into a thread."""

    name: ClassVar[str]
    begin: ClassVar[dict[str, Any]]  # parameters of CreateMultipartUpload

    def mark(self, content: memoryview) -> Mark: ...

    def asks(self, mark: Mark) -> dict[str, Any]:
        """Parameters of PutObject and UploadPart."""
        ...

    def listed(self, mark: Mark) -> dict[str, Any]:
        """What CompleteMultipartUpload says of the part beside its ETag."""
        ...

    def refutes(self, mark: Mark, answer: dict[str, Any]) -> str | None:
        """What an answer to PutObject or UploadPart says against the body; None when nothing."""
        ...

    def refutes_whole(self, marks: Sequence[Mark], answer: dict[str, Any], found: dict[str, Any]) -> str | None:
        """What the answers to CompleteMultipartUpload (for one PUT: to that) and HeadObject say against the object."""
        ...

    async def reread(self, client: S3Client, path: str, marks: Sequence[Mark]) -> str | None:
        """What reading says against the object."""
        ...

    async def works(self, client: S3Client) -> bool:
        """Whether this store passes: see :func:`choose`."""
        ...


class Crc32c:
    name: ClassVar[str] = "crc32c"
    begin: ClassVar[dict[str, Any]] = {"ChecksumAlgorithm": "CRC32C"}

    def mark(self, content: memoryview) -> Mark:
        return Mark(len(content), crc32c(content).to_bytes(4, "big"))

    def asks(self, mark: Mark) -> dict[str, Any]:
        return {"ChecksumCRC32C": _base64(mark.value)}

    def listed(self, mark: Mark) -> dict[str, Any]:
        return {"ChecksumCRC32C": _base64(mark.value)}

    def refutes(self, mark: Mark, answer: dict[str, Any]) -> str | None:
        said, ours = answer.get("ChecksumCRC32C"), _base64(mark.value)
        if said is None:
            return "it did not repeat the CRC-32C that it was given (confirm=md5 is for such a store)"
        return None if said == ours else f"it answered with CRC-32C {said} for content with {ours}"

    def refutes_whole(self, marks: Sequence[Mark], answer: dict[str, Any], found: dict[str, Any]) -> str | None:
        # Each part was compared. Of the whole some stores say the checksum of checksums.
        said = str(answer.get("ChecksumCRC32C") or found.get("ChecksumCRC32C") or "")
        ours = _base64(crc32c(b"".join(mark.value for mark in marks)).to_bytes(4, "big"))
        if "-" not in said or said.partition("-")[0] == ours:
            return None
        return f"it says CRC-32C {said} where the parts make {ours}-{len(marks)}"

    async def reread(self, client: S3Client, path: str, marks: Sequence[Mark]) -> str | None:  # noqa: ARG002
        return None

    async def works(self, client: S3Client) -> bool:
        """A body with a wrong CRC-32C must be refused for that, and a right one repeated."""
        content = memoryview(secrets.token_bytes(64))
        mark = self.mark(content)
        wrong = Mark(mark.size, bytes([mark.value[0] ^ 1]) + mark.value[1:])
        if not await _refuses(client, content, self.asks(wrong)):
            return False
        return self.refutes(mark, await _try(client, content, self.asks(mark))) is None


class Crc64:
    name: ClassVar[str] = "crc64"
    begin: ClassVar[dict[str, Any]] = {}

    def mark(self, content: memoryview) -> Mark:
        return Mark(len(content), crc64_xz(content))

    def asks(self, mark: Mark) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def listed(self, mark: Mark) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def refutes(self, mark: Mark, answer: dict[str, Any]) -> str | None:
        said = _crc64_said(answer)
        # A part need not be told: the whole is.
        return None if said in (None, mark.value) else f"it answered with CRC-64 {said} for content with {mark.value}"

    def refutes_whole(self, marks: Sequence[Mark], answer: dict[str, Any], found: dict[str, Any]) -> str | None:
        ours = 0
        for mark in marks:
            ours = crc64_xz_combine(ours, mark.value, mark.size)
        told = [said for said in (_crc64_said(answer), _crc64_said(found)) if said is not None]
        if not told:
            return "it told no CRC-64 of it (confirm=md5 is for such a store)"
        wrong = [said for said in told if said != ours]
        return f"it says CRC-64 {wrong[0]} where the content has {ours}" if wrong else None

    async def reread(self, client: S3Client, path: str, marks: Sequence[Mark]) -> str | None:  # noqa: ARG002
        return None

    async def works(self, client: S3Client) -> bool:
        """It tells a CRC-64, and the right one."""
        content = memoryview(secrets.token_bytes(64))
        return _crc64_said(await _try(client, content, {})) == crc64_xz(content)


class Md5:
    """``multipart_etag``: the ETag of a multipart object is the MD5 of its parts' MD5s, "-" and their number."""

    name: ClassVar[str] = "md5"
    begin: ClassVar[dict[str, Any]] = {}

    def __init__(self, multipart_etag: bool) -> None:
        self._multipart_etag = multipart_etag

    def mark(self, content: memoryview) -> Mark:
        return Mark(len(content), hashlib.md5(content, usedforsecurity=False).digest())

    def asks(self, mark: Mark) -> dict[str, Any]:
        return {"ContentMD5": _base64(mark.value)}

    def listed(self, mark: Mark) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def refutes(self, mark: Mark, answer: dict[str, Any]) -> str | None:
        said = etag_of(answer)
        ours = mark.value.hex()
        return None if said in (None, ours) else f"it answered with MD5 {said} for content with {ours}"

    def refutes_whole(self, marks: Sequence[Mark], answer: dict[str, Any], found: dict[str, Any]) -> str | None:  # noqa: ARG002
        said = str(found.get("ETag", "")).strip('"').lower()
        if len(marks) == 1 and "-" not in said:
            return self.refutes(marks[0], found)
        joined = b"".join(mark.value for mark in marks)
        ours = f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(marks)}"
        if not self._multipart_etag or not _plain(found) or said == ours:
            return None
        return f"its ETag is {said} where the parts make {ours}"

    async def reread(self, client: S3Client, path: str, marks: Sequence[Mark]) -> str | None:  # noqa: ARG002
        return None

    async def works(self, client: S3Client) -> bool:
        """Its ETags are MD5s, or a body with a wrong MD5 is refused for that and a right one taken."""
        content = memoryview(secrets.token_bytes(64))
        mark = self.mark(content)
        answer = await _try(client, content, self.asks(mark))
        if etag_of(answer) is not None:
            return self.refutes(mark, answer) is None
        wrong = Mark(mark.size, bytes([mark.value[0] ^ 1]) + mark.value[1:])
        return await _refuses(client, content, self.asks(wrong))


class ReadBack:
    """A range of each body is chosen by chance, so that no store can know which."""

    name: ClassVar[str] = "read-back"
    begin: ClassVar[dict[str, Any]] = {}

    def mark(self, content: memoryview) -> Mark:
        length = min(_SAMPLE, len(content))
        start = secrets.randbelow(len(content) - length + 1)
        return Mark(len(content), (start, length, xxh3_128(content[start : start + length])))

    def asks(self, mark: Mark) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def listed(self, mark: Mark) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def refutes(self, mark: Mark, answer: dict[str, Any]) -> str | None:  # noqa: ARG002
        return None

    def refutes_whole(self, marks: Sequence[Mark], answer: dict[str, Any], found: dict[str, Any]) -> str | None:  # noqa: ARG002
        return None

    async def reread(self, client: S3Client, path: str, marks: Sequence[Mark]) -> str | None:
        samples, offset = [], 0
        for mark in marks:
            start, length, digest = mark.value
            if length:
                samples.append((offset + start, length, digest))
            offset += mark.size
        for at, length, digest in random.sample(samples, min(_SAMPLES, len(samples))):
            answer = await client.call(
                "get_object", path, "read back", read=True, Key=client.key(path), Range=f"bytes={at}-{at + length - 1}"
            )
            if xxh3_128(answer["Body"]) != digest:
                return f"bytes {at} to {at + length} read back as others"
        return None

    async def works(self, client: S3Client) -> bool:  # noqa: ARG002
        return True


def confirmation_named(name: str, profile: Profile) -> Confirmation:
    """The way of that name (:data:`mover.target.profiles.CONFIRMATIONS`)."""
    if name == Md5.name:
        return Md5(profile.multipart_etag)
    ways: dict[str, type[Crc32c | Crc64 | ReadBack]] = {"crc32c": Crc32c, "crc64": Crc64, "read-back": ReadBack}
    return ways[name]()


async def choose(client: S3Client) -> Confirmation:
    """The first way of the destination's that the store passes the test for; the last one needs none.

    The test writes an object of 64 bytes and removes it. Raises what the store answers when it can not be asked.
    """
    ways = client.destination.confirm
    if client.destination.objects.lock_mode:
        # A body that is to be locked must go with a digest in its head.
        ways = tuple(name for name in ways if name in (Crc32c.name, Md5.name)) or (Md5.name,)
    for name in ways[:-1]:
        way = confirmation_named(name, client.profile)
        try:
            if await way.works(client):
                return way
        except TargetError:
            continue  # it can not take even that
    return confirmation_named(ways[-1], client.profile)


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C as the rest of the world has it: OceanBase's leaves out the inversions."""
    return ob_crc64(data, _ALL) ^ _ALL


def etag_of(answer: dict[str, Any]) -> str | None:
    """The MD5 that an answer's ETag is, or None when it is none."""
    etag = str(answer.get("ETag") or "").strip('"').lower()
    return etag if _MD5.match(etag) and _plain(answer) else None


def etag_of_parts(etags: Sequence[str]) -> str | None:
    """The ETag of a multipart object by those of its parts, as most stores make it; None where those are no MD5s."""
    digests = [etag.strip('"').lower() for etag in etags]
    if not all(_MD5.match(digest) for digest in digests):
        return None
    joined = bytes.fromhex("".join(digests))
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(digests)}"


async def _try(
    client: S3Client, content: memoryview, asks: dict[str, Any], final: Sequence[str] = ()
) -> dict[str, Any]:
    """PUT ``content`` under a name of its own and remove it, whatever became of it."""
    path = f"probe-{secrets.token_hex(8)}"
    key = client.key(path)
    options = client.destination.objects.parameters(write_once=False)
    try:
        return await client.call("put_object", path, "probe", body=content, final=final, Key=key, **options, **asks)
    finally:
        try:
            await client.call("delete_object", path, "delete", attempts=2, Key=key)
        except MoverError:
            pass  # it was refused, and some stores say that there is nothing to delete


async def _refuses(client: S3Client, content: memoryview, asks: dict[str, Any]) -> bool:
    """Whether a body that is not what ``asks`` says of it is refused, and for that."""
    try:
        await _try(client, content, asks, final=_REFUSED)
    except TargetError as error:
        return error.where.get("s3_code") in _REFUSED
    return False


def _crc64_said(answer: dict[str, Any]) -> int | None:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    said = next((str(headers[name]) for name in _CRC64_HEADERS if name in headers), "")
    return int(said) if said.isdecimal() else None


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _plain(answer: dict[str, Any]) -> bool:
    """Whether ETags are MD5s: with KMS or customer keys they are not."""
    return "kms" not in str(answer.get("ServerSideEncryption", "")) and not answer.get("SSECustomerAlgorithm")
