"""What an object store does, found by trying: everything a profile says that can be tried for little.

Each probe writes below a prefix that its caller removes, gives up every upload that it began, and raises what the store
answers when it can not be asked at all.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from mover.errors import MoverError, TargetError, TargetExists
from mover.target.profiles import MIB
from mover.target.s3_client import S3Client
from mover.target.s3_confirm import confirmation_named

_SIZES = (MIB, 5 * MIB)  # of parts, smallest first
_COUNTS = (10_000, 1_000)
_NO_LOCK = ("ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NotImplemented")
_REFUSED = ("BadDigest", "InvalidDigest")
# In the order of their UTF-8 bytes. A store that goes directory by directory has the second first.
_ORDERED = ("a.x", "a/x", "a0x", "a\u00e9x")


@dataclass(frozen=True, slots=True)
class Parts:
    """What was found of uploads in parts. ``etag``: theirs is the MD5 of the parts' MD5s."""

    least: int
    most: int
    etag: bool


async def honours_condition(client: S3Client, base: str) -> bool:
    """Whether a PUT that asks for a new name is refused where the name is taken."""
    key = client.key(f"{base}/conditional")
    condition = client.profile.must_be_new
    try:
        await client.call("put_object", base, "probe", body=memoryview(b"1"), Key=key, **condition)
        await client.call("put_object", base, "probe", body=memoryview(b"2"), Key=key, **condition)
    except TargetExists:
        return True
    except TargetError:
        return False
    return False


async def honours_condition_of_parts(client: S3Client, base: str) -> bool:
    """The same of CompleteMultipartUpload."""
    path = f"{base}/conditional-parts"
    await client.call("put_object", path, "probe", body=memoryview(b"1"), Key=client.key(path))
    try:
        await _upload(client, path, [b"2"], client.profile.must_be_new)
    except TargetExists:
        return True
    except TargetError:
        return False
    return False


async def find_confirmation(client: S3Client, base: str) -> str:
    """The best way in which this store proves what it has (:mod:`mover.target.s3_confirm`)."""
    for name in ("crc32c", "crc64"):
        try:
            if await confirmation_named(name, client.profile).works(client):
                return name
        except TargetError:
            continue  # it can not take even that
    return "md5" if await _compares_md5(client, f"{base}/md5") else "read-back"


async def find_parts(client: S3Client, base: str) -> Parts:
    """The smallest part and the highest number of one that it takes, of those that matter.

    Raises TargetError when it takes none of them.
    """
    least, etag = 0, False
    refused: TargetError | None = None
    for size in _SIZES:
        content = [secrets.token_bytes(size), b"end"]
        try:
            answer = await _upload(client, f"{base}/parts-{size}", content, {})
        except TargetError as error:
            refused = error
            continue
        sums = [hashlib.md5(part, usedforsecurity=False).digest() for part in content]
        whole = hashlib.md5(b"".join(sums), usedforsecurity=False).hexdigest()
        least, etag = size, str(answer.get("ETag") or "").strip('"').lower() == f"{whole}-{len(content)}"
        break
    if not least:
        assert refused is not None
        raise refused
    path = f"{base}/many-parts"
    upload = await _begin(client, path)
    try:
        for number in _COUNTS:
            try:
                await _part(client, path, upload, number, b"x")
            except TargetError as error:
                refused = error
                continue
            return Parts(least, number, etag)
    finally:
        await _give_up(client, path, upload)
    assert refused is not None
    raise refused


async def lists_in_order(client: S3Client, base: str) -> bool:
    """Whether a listing is in the order of UTF-8 bytes."""
    keys = [client.key(f"{base}/order/{name}") for name in _ORDERED]
    for key in keys:
        await client.call("put_object", base, "probe", body=memoryview(b""), Key=key)
    page = await client.call("list_objects_v2", base, "probe", Prefix=keys[0].removesuffix(_ORDERED[0]))
    return [str(item["Key"]) for item in page.get("Contents", ()) if not str(item["Key"]).endswith("/")] == keys


async def locks_objects(client: S3Client) -> bool:
    """Whether the bucket was made with object lock."""
    try:
        answer = await client.call("get_object_lock_configuration", "", "look at the lock of")
    except TargetError as error:
        if error.where.get("s3_code") not in _NO_LOCK:
            raise
        return False
    return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")


async def _compares_md5(client: S3Client, path: str) -> bool:
    content = b"mover"
    sums = [hashlib.md5(text, usedforsecurity=False).digest() for text in (b"other", content)]
    for said, right in zip(sums, (False, True), strict=True):
        told: dict[str, Any] = {"Key": client.key(path), "ContentMD5": base64.b64encode(said).decode()}
        try:
            await client.call("put_object", path, "probe", body=memoryview(content), attempts=1, **told)
        except TargetError as error:
            if right or error.where.get("s3_code") not in _REFUSED:
                return False
        else:
            if not right:
                return False
    return True


async def _upload(client: S3Client, path: str, parts: list[bytes], condition: dict[str, Any]) -> dict[str, Any]:
    upload = await _begin(client, path)
    try:
        listed = [
            {"PartNumber": number, "ETag": await _part(client, path, upload, number, part)}
            for number, part in enumerate(parts, 1)
        ]
        answer = await client.call(
            "complete_multipart_upload",
            path,
            "probe",
            Key=client.key(path),
            UploadId=upload,
            MultipartUpload={"Parts": listed},
            **condition,
        )
    except BaseException:
        await _give_up(client, path, upload)
        raise
    return answer


async def _begin(client: S3Client, path: str) -> str:
    answer = await client.call("create_multipart_upload", path, "probe", Key=client.key(path))
    return _told(answer, "UploadId", path)


async def _part(client: S3Client, path: str, upload: str, number: int, part: bytes) -> str:
    where: dict[str, Any] = {"Key": client.key(path), "UploadId": upload, "PartNumber": number}
    return _told(await client.call("upload_part", path, "probe", body=memoryview(part), **where), "ETag", path)


def _told(answer: dict[str, Any], name: str, path: str) -> str:
    if not answer.get(name):
        raise TargetError(f"the store answers without {name}", hint="it does not know uploads in parts", path=path)
    return str(answer[name])


async def _give_up(client: S3Client, path: str, upload: str) -> None:
    try:
        await client.call("abort_multipart_upload", path, "abort", attempts=2, Key=client.key(path), UploadId=upload)
    except MoverError:
        pass  # it is gone with the upload, or the check of unfinished writes says it
