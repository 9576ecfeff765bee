"""Whole objects in one PUT, and how an object store's word is checked.

Content-MD5 makes the store compare what it received; the ETag it answers with must be that MD5 again. Where a store
encrypts with its own keys the ETag is something else, then the size is asked for. A name that must be new is written
with ``If-None-Match: *`` and a nonce in the object's metadata: when an answer is lost and the repeated request finds
the name taken, the nonce tells whether it was taken by ourselves.
"""

from __future__ import annotations

import re
import secrets
import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from mover.errors import TargetError, TargetExists, TargetNotFound
from mover.target.base import ObjectInfo
from mover.target.s3_client import S3Client

NONCE = "mover-nonce"
_MD5 = re.compile(r"[0-9a-f]{32}\Z")


def new_nonce() -> str:
    return secrets.token_hex(8)


async def head(client: S3Client, path: str) -> dict[str, Any] | None:
    """The object's headers, or None when there is none."""
    try:
        return await client.call("head_object", path, "look at", Key=client.key(path))
    except TargetNotFound:
        return None


async def put_whole(client: S3Client, path: str, content: memoryview, *, nonce: str | None) -> ObjectInfo:
    """One PUT, confirmed. With ``nonce`` the name must be new: TargetExists when it is not."""
    digest = await client.digest(content)
    parameters: dict[str, Any] = {}
    if nonce is not None:
        parameters["Metadata"] = {NONCE: nonce}
        if client.profile.send_conditional:
            parameters["IfNoneMatch"] = "*"
        if not client.profile.conditional_put and await head(client, path) is not None:
            raise taken(client, path)
    try:
        response = await client.call(
            "put_object", path, "write", body=content, Key=client.key(path), ContentMD5=digest.header, **parameters
        )
    except TargetExists:
        found = await head(client, path)
        if nonce is None or found is None or nonce_of(found) != nonce:
            raise
        response = found  # our own first attempt did it, and its answer was lost
    etag = etag_of(response)
    if etag is not None and etag != digest.hex:
        raise _differs(client, path, f"it answered with MD5 {etag} for content with {digest.hex}")
    if etag is None or (nonce is not None and not client.profile.conditional_put):
        found = await head(client, path)
        if found is None or found.get("ContentLength") != len(content):
            size = None if found is None else found.get("ContentLength")
            raise _differs(client, path, f"it acknowledged {len(content)} bytes and has {size}")
        if nonce is not None and nonce_of(found) not in (nonce, None):
            raise taken(client, path)  # the store ignores If-None-Match and another writer came last
        response = found
    return ObjectInfo(path, len(content), modified_us(response))


async def confirm_parts(client: S3Client, path: str, size: int, etag: str, nonce: str) -> ObjectInfo:
    """Ask for a multipart object that was completed: it must be ours, of this size and, where that is known, ETag."""
    found = await head(client, path)
    if found is None:
        raise _differs(client, path, "it acknowledged the object and does not have it")
    if nonce_of(found) not in (nonce, None):
        raise taken(client, path)
    if found.get("ContentLength") != size:
        raise _differs(client, path, f"it has {found.get('ContentLength')} bytes of {size}")
    said = str(found.get("ETag", "")).strip('"').lower()
    if client.profile.multipart_etag and _plain(found) and said != etag:
        raise _differs(client, path, f"its ETag is {said} where the parts make {etag}")
    return ObjectInfo(path, size, modified_us(found))


def etag_of(response: dict[str, Any]) -> str | None:
    """The MD5 that an answer's ETag is, or None when it is none."""
    etag = str(response.get("ETag") or "").strip('"').lower()
    return etag if _MD5.match(etag) and _plain(response) else None


def nonce_of(found: dict[str, Any]) -> str | None:
    """Who wrote it, or None when the store keeps no metadata or the object was not written to be new."""
    return {key.lower(): value for key, value in (found.get("Metadata") or {}).items()}.get(NONCE)


def modified_us(response: dict[str, Any]) -> int:
    """Microseconds since the epoch, by the store's clock, whole seconds as a rule."""
    moment = response.get("LastModified")
    if isinstance(moment, datetime):
        return int(moment.timestamp() * 1_000_000)
    try:
        date = parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"]["date"])
        return int(date.timestamp() * 1_000_000)
    except (KeyError, TypeError, ValueError):
        return time.time_ns() // 1000


def taken(client: S3Client, path: str) -> TargetExists:
    url = client.destination.url
    return TargetExists(f"{path!r} is taken at {url}: nothing published is replaced", path=path)


def _plain(response: dict[str, Any]) -> bool:
    """Whether ETags are MD5s: with KMS or customer keys they are not."""
    return "kms" not in str(response.get("ServerSideEncryption", "")) and not response.get("SSECustomerAlgorithm")


def _differs(client: S3Client, path: str, how: str) -> TargetError:
    return TargetError(
        f"{client.destination.url} did not store {path!r} as it was sent: {how}",
        hint="do not trust this store until its operator has explained it; nothing refers to the object",
        path=path,
    )
