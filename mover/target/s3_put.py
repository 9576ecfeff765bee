"""Whole objects in one PUT, and how an object store's word is checked.

A body is confirmed as :mod:`mover.target.s3_confirm` says; where the answer's ETag is no MD5 (a store that encrypts
with its own keys) the size is asked for as well. A name that must be new is written
with ``If-None-Match: *`` and a nonce in the object's metadata: when an answer is lost and the repeated request finds
the name taken, the nonce tells whether it was taken by ourselves.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from mover.errors import TargetError, TargetExists, TargetNotFound
from mover.target.base import ObjectInfo
from mover.target.object_options import locked_until
from mover.target.s3_client import S3Client
from mover.target.s3_confirm import Confirmation, Mark, etag_of

NONCE = "mover-nonce"


def new_nonce() -> str:
    return secrets.token_hex(8)


async def head(client: S3Client, path: str) -> dict[str, Any] | None:
    """The object's headers, or None when there is none."""
    try:
        return await client.call("head_object", path, "look at", Key=client.key(path))
    except TargetNotFound:
        return None


async def put_whole(
    client: S3Client,
    path: str,
    content: memoryview,
    *,
    nonce: str | None,
    way: Confirmation,
    options: Mapping[str, Any],
) -> ObjectInfo:
    """One PUT with ``options``, confirmed ``way``'s way. With ``nonce`` the name must be new: else TargetExists."""
    mark = await client.digest(way.mark, content)
    parameters: dict[str, Any] = {**options, **way.asks(mark)}
    if nonce is not None:
        parameters["Metadata"] = {NONCE: nonce}
        parameters |= client.profile.must_be_new
        if not client.profile.conditional_put and await head(client, path) is not None:
            raise taken(client, path)
    found: dict[str, Any] | None = None
    try:
        answer = await client.call("put_object", path, "write", body=content, Key=client.key(path), **parameters)
    except TargetExists:
        found = await head(client, path)
        if nonce is None or found is None or nonce_of(found) != nonce:
            raise
        answer = found  # our own first attempt did it, and its answer was lost
    require_encrypted(client, path, options, answer)
    if found is None:
        refuted = way.refutes(mark, answer)
        if refuted is not None:
            raise differs(client, path, refuted)
        unproved = "ObjectLockMode" in options and "lock" not in client.honoured
        doubtful = unproved or etag_of(answer) is None or (nonce is not None and not client.profile.conditional_put)
        if doubtful or way.refutes_whole([mark], answer, {}) is not None:
            found = await head(client, path)
            if found is None:
                raise differs(client, path, "it acknowledged the object and does not have it")
    if found is not None:
        if nonce is not None and nonce_of(found) not in (nonce, None):
            raise taken(client, path)  # the store ignores If-None-Match and another writer came last
        if found.get("ContentLength") != len(content):
            raise differs(client, path, f"it has {found.get('ContentLength')} bytes of {len(content)}")
        require_locked(client, path, options, found)
    refuted = way.refutes_whole([mark], answer, found or {}) or await way.reread(client, path, [mark])
    if refuted is not None:
        raise differs(client, path, refuted)
    return ObjectInfo(path, len(content), modified_us(found or answer))


async def confirm_parts(
    client: S3Client,
    path: str,
    marks: Sequence[Mark],
    answer: dict[str, Any],
    nonce: str,
    way: Confirmation,
    options: Mapping[str, Any],
) -> ObjectInfo:
    """Ask for a multipart object that was completed: it must be ours, of this size, and what ``way`` can tell."""
    found = await head(client, path)
    if found is None:
        raise differs(client, path, "it acknowledged the object and does not have it")
    if nonce_of(found) not in (nonce, None):
        raise taken(client, path)
    size = sum(mark.size for mark in marks)
    if found.get("ContentLength") != size:
        raise differs(client, path, f"it has {found.get('ContentLength')} bytes of {size}")
    require_encrypted(client, path, options, found)  # SeaweedFS says it here and not when an upload begins
    require_locked(client, path, options, found)
    refuted = way.refutes_whole(marks, answer, found) or await way.reread(client, path, marks)
    if refuted is not None:
        raise differs(client, path, refuted)
    return ObjectInfo(path, size, modified_us(found))


def require_encrypted(client: S3Client, path: str, options: Mapping[str, Any], answer: dict[str, Any]) -> None:
    """Raises TargetError when encryption was asked for, and the answer of the store does not say so."""
    asked = options.get("ServerSideEncryption")
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    said = str(answer.get("ServerSideEncryption") or headers.get("x-oss-server-side-encryption") or "")
    if asked is None or said == asked or (asked == "aws:kms" and "kms" in said.lower()):
        return
    raise TargetError(
        f"{client.destination.url} does not say that it encrypts {path!r} (sse={asked}): it says {said or 'nothing'}",
        hint="this store does not know sse, or not this one; nothing refers to the object",
        path=path,
    )


def require_locked(client: S3Client, path: str, options: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Raises TargetError when a lock was asked for and HeadObject (``found``) has none."""
    if "ObjectLockMode" not in options:
        return
    if locked_until(found) is None:
        raise TargetError(
            f"{client.destination.url} has {path!r} and says of no lock, though object_lock was asked for",
            hint="use a bucket made with object lock, and a key that may read retentions (s3:GetObjectRetention)",
            path=path,
        )
    client.honoured.add("lock")


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


def differs(client: S3Client, path: str, how: str) -> TargetError:
    return TargetError(
        f"{client.destination.url} did not store {path!r} as it was sent: {how}",
        hint="do not trust this store until its operator has explained it; nothing refers to the object",
        path=path,
    )
