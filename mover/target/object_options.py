"""How objects are to be kept at an object store: encryption, storage class, tags and locks.

Sources: the S3 API reference of PutObject and CreateMultipartUpload (x-amz-server-side-encryption, x-amz-storage-class,
x-amz-tagging, x-amz-object-lock-mode and -retain-until-date).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

NAMES = ("sse", "sse_kms_key_id", "storage_class", "tags", "object_lock")
_CLASS = re.compile(r"[A-Z][A-Z_]{1,31}\Z")
# What is in these must be ordered back for hours before it can be read, and mover reads what it wrote.
_FROZEN = frozenset({"GLACIER", "DEEP_ARCHIVE", "ARCHIVE", "COLD_ARCHIVE", "DEEP_COLD_ARCHIVE"})
_LOCK = re.compile(r"(governance|compliance):([1-9][0-9]{0,4})d\Z")
_TAG = re.compile(r"[\w +\-=.:/@]*\Z")
_MOST_TAGS = 10


@dataclass(frozen=True, slots=True)
class ObjectOptions:
    """What every object is written with; class and lock only what is written once (:meth:`parameters`)."""

    sse: str | None = None  # "AES256" or "aws:kms"
    sse_kms_key_id: str | None = None
    storage_class: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    lock_mode: str | None = None  # "GOVERNANCE" or "COMPLIANCE"
    lock_days: int = 0

    def parameters(self, *, write_once: bool) -> dict[str, Any]:
        """Parameters of PutObject and CreateMultipartUpload, by botocore's names.

        Args:
            write_once: the object is never written again. Others get no storage class, because classes for what is
                seldom used charge for each version, and no lock, because the next version would have to wait for it.
        """
        found: dict[str, Any] = {}
        if self.sse:
            found["ServerSideEncryption"] = self.sse
        if self.sse_kms_key_id:
            found["SSEKMSKeyId"] = self.sse_kms_key_id
        if self.tags:
            found["Tagging"] = urlencode(self.tags)
        if write_once and self.storage_class:
            found["StorageClass"] = self.storage_class
        if write_once and self.lock_mode:
            until = datetime.now(UTC) + timedelta(days=self.lock_days)
            found["ObjectLockMode"] = self.lock_mode
            found["ObjectLockRetainUntilDate"] = until.strftime("%Y-%m-%dT%H:%M:%SZ")
        return found


def parse_options(given: Mapping[str, str]) -> ObjectOptions:
    """The options among ``given``, by the names in :data:`NAMES`.

    Raises ValueError that says what is wrong, in words that follow "its".
    """
    sse = given.get("sse")
    if sse not in (None, "AES256", "aws:kms"):
        raise ValueError("sse is not known: use AES256 or aws:kms")
    if "sse_kms_key_id" in given and sse != "aws:kms":
        raise ValueError("sse_kms_key_id is for sse=aws:kms only")
    storage_class = given.get("storage_class")
    if storage_class is not None and not _CLASS.match(storage_class):
        raise ValueError("storage_class is not one: write it like STANDARD_IA")
    if storage_class in _FROZEN:
        raise ValueError(
            f"storage_class {storage_class} can not be read without ordering it back: mover reads what it wrote"
        )
    mode, days = None, 0
    if "object_lock" in given:
        lock = _LOCK.match(given["object_lock"].lower())
        if lock is None:
            raise ValueError("object_lock is not one: write governance:30d or compliance:30d")
        mode, days = lock[1].upper(), int(lock[2])
    return ObjectOptions(sse, given.get("sse_kms_key_id"), storage_class, _tags(given.get("tags", "")), mode, days)


def _tags(text: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for piece in text.split(",") if text else []:
        key, equals, value = piece.partition("=")
        if not (0 < len(key) <= 128 and len(value) <= 256 and equals and _TAG.match(key + value)) or key in found:
            raise ValueError("tags are not tags: write them like team=dba,env=prod, each once")
        found[key] = value
    if len(found) > _MOST_TAGS:
        raise ValueError(f"tags are more than {_MOST_TAGS}")
    return tuple(found.items())


def locked_until(found: Mapping[str, Any]) -> datetime | None:
    """Until when the object of a HeadObject answer can not be removed; None when it can be."""
    until = found.get("ObjectLockRetainUntilDate")
    if until is None:
        return None
    moment = until if isinstance(until, datetime) else datetime.fromisoformat(str(until))
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment if moment > datetime.now(UTC) else None
