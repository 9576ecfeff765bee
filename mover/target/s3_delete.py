"""Removing objects: many with one request where the store can, and what a lock keeps is told with its date.

DeleteObjects answers 200 whatever became of the keys, so each key must be named as deleted; whatever is not is removed
singly, and says then why it can not be. A bucket that locks objects keeps versions: without a version's id a removal
only hides the object, and what is not locked any more would be kept, and paid for, for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from mover.errors import MoverError, TargetError, TargetLocked, TargetNotFound
from mover.target.object_options import locked_until
from mover.target.s3_client import S3Client
from mover.target.s3_put import head

AT_ONCE = 8  # single removals
_UNKNOWN = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405", "404", "NotFound"})
# How stores refuse to remove what is locked: Amazon, MinIO and SeaweedFS, OSS, and all of them without a document.
_KEPT = frozenset({"AccessDenied", "InvalidRequest", "ObjectLocked", "FileImmutable", "403", "409"})


class S3Deleter:
    """Removes objects of one bucket."""

    def __init__(self, client: S3Client) -> None:
        self._client = client
        self._batches = client.profile.delete_most > 1  # until the store says that it does not know them

    async def one(self, path: str) -> None:
        """Remove an object. Idempotent. Raises TargetLocked."""
        client = self._client
        key = client.key(path)
        version: dict[str, Any] = {}
        if client.destination.objects.lock_mode:
            found = await head(client, path)
            if found is None:
                return
            until = locked_until(found)
            if until is not None:
                raise _locked(client, {path: until})
            if found.get("VersionId") not in (None, "", "null"):
                version = {"VersionId": str(found["VersionId"])}
        try:
            await client.call("delete_object", path, "delete", Key=key, **version)
        except TargetNotFound:  # some stores say so
            return
        except MoverError as error:
            if error.where.get("s3_code") not in _KEPT:
                raise
            found = await head(client, path)
            until = None if found is None else locked_until(found)
            if until is None:
                raise
            raise _locked(client, {path: until}) from error

    async def many(self, paths: Iterable[str]) -> None:
        """Remove objects. What can be removed is gone before anything is raised: see :class:`TargetLocked`."""
        client = self._client
        left = list(dict.fromkeys(paths))
        for path in left:
            client.key(path)  # all of them are looked at before the first is removed
        if self._batches and not client.destination.objects.lock_mode:
            most = client.profile.delete_most
            batches = [left[at : at + most] for at in range(0, len(left), most)]
            left = []
            for batch in batches:
                left += await self._batch(batch) if self._batches else batch
        await self._singly(left)

    async def _batch(self, paths: Sequence[str]) -> list[str]:
        """One DeleteObjects. Returns what the store did not say to be deleted."""
        if len(paths) == 1:
            return list(paths)
        keys = {self._client.key(path): path for path in paths}
        try:
            answer = await self._client.call(
                "delete_objects",
                paths[0],
                f"delete {len(paths)} objects from",
                Delete={"Objects": [{"Key": key} for key in keys], "Quiet": False},
            )
        except TargetError as error:
            if error.where.get("s3_code") not in _UNKNOWN:
                raise
            self._batches = False
            return list(paths)
        gone = {item.get("Key") for item in answer.get("Deleted", ())}
        gone |= {item.get("Key") for item in answer.get("Errors", ()) if item.get("Code") == "NoSuchKey"}
        return [path for key, path in keys.items() if key not in gone]

    async def _singly(self, paths: Sequence[str]) -> None:
        locked: dict[str, datetime] = {}
        failed: list[MoverError] = []
        waiting = iter(paths)

        async def work() -> None:
            for path in waiting:
                try:
                    await self.one(path)
                except TargetLocked as error:
                    locked.update(error.locked)
                except MoverError as error:
                    failed.append(error)
                    return

        await asyncio.gather(*(work() for _ in range(min(AT_ONCE, self._client.slots.limit, len(paths)))))
        if failed:
            raise failed[0]
        if locked:
            raise _locked(self._client, locked)


def _locked(client: S3Client, locked: dict[str, datetime]) -> TargetLocked:
    url = client.destination.url
    first, last = min(locked.values()), max(locked.values())
    path = next(iter(locked))
    until = f"until {last.isoformat()}"
    if len(locked) == 1:
        message = f"{path!r} at {url} is locked {until}"
    else:
        message = f"{len(locked)} objects at {url} are locked, the first until {first.isoformat()}, the last {until}"
    return TargetLocked(message, locked=locked, hint=f"repeat the command after {last.isoformat()}")
