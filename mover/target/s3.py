"""``s3://`` and ``oss://``: a prefix in a bucket of an object store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from mover.clock import Clock
from mover.errors import TargetError, TargetExists, TargetNotFound
from mover.target.base import Buffer, Capabilities, Leftover, ObjectInfo
from mover.target.fence import require_fence
from mover.target.paths import check_path, check_prefix
from mover.target.s3_client import ATTEMPTS, RETRY_SECONDS, S3Client
from mover.target.s3_confirm import confirmation_named
from mover.target.s3_delete import S3Deleter
from mover.target.s3_put import head, modified_us, new_nonce, put_whole, taken
from mover.target.s3_writer import S3Writer
from mover.target.url import ObjectDestination

_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)\Z")


class S3Target:
    """An object store as a destination. See :class:`mover.target.base.Target` for the contract.

    One session and one client for its life. No append: a name is written once.

    Args:
        destination: what the URL says.
        clock: the waits between retries.
        retry_for, attempts: see :class:`S3Client`.
    """

    def __init__(
        self,
        destination: ObjectDestination,
        *,
        clock: Clock | None = None,
        retry_for: float = RETRY_SECONDS,
        attempts: int | None = None,
    ) -> None:
        self.url = destination.url
        self.destination = destination
        profile = destination.profile
        self.capabilities = Capabilities(
            append=False,
            conditional_put=profile.conditional_put,
            device_type=profile.device_type,
            min_part=profile.min_part,
            max_parts=profile.max_parts,
            locks=destination.objects.lock_mode is not None,
        )
        self._client = S3Client(destination, clock=clock, retry_for=retry_for, attempts=attempts)
        self._deleter = S3Deleter(self._client)
        self._small = confirmation_named("md5", profile)  # every store knows it, and small files cost nothing

    def __repr__(self) -> str:
        return f"<S3Target {self.url}>"

    @property
    def client(self) -> S3Client:
        """For whoever examines the store itself, below the contract of a destination."""
        return self._client

    @property
    def retries(self) -> int:
        """Requests that had to be repeated so far."""
        return self._client.retries

    async def open(self) -> None:
        """Make the client and prove that the bucket answers, with few tries: somebody is waiting."""
        await self._client.open()
        await self._look(attempts=3)

    @property
    def parts_under_way(self) -> int:
        return self._client.slots.limit

    async def check(self) -> None:
        await self._look(attempts=None)

    async def put(self, path: str, data: Buffer, *, if_absent: bool = False, write_once: bool = False) -> ObjectInfo:
        content = memoryview(data).cast("B")
        nonce = new_nonce() if if_absent else None
        options = self.destination.objects.parameters(write_once=write_once)
        return await put_whole(self._client, check_path(path), content, nonce=nonce, way=self._small, options=options)

    async def create(self, path: str, *, write_once: bool = False) -> S3Writer:
        if await head(self._client, path) is not None:
            raise taken(self._client, path)
        options = self.destination.objects.parameters(write_once=write_once)
        return S3Writer(self._client, path, await self._client.confirmation(), options)

    async def append(self, path: str, offset: int, data: Buffer) -> None:  # noqa: ARG002
        raise TargetError(
            f"can not append to {path!r}: {self.url} has no append",
            hint="write a file of its own for each flush (capabilities.append)",
            path=path,
            offset=offset,
        )

    async def get(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        check_path(path)
        if start < 0 or (length is not None and length <= 0):
            # A request can not ask for nothing; the file and its size are looked at all the same.
            size = (await self._existing(path)).size
            if start < 0 or length != 0 or start > size:
                raise _short(path, start, length, size)
            return b""
        data: bytes = (await self._fetch(path, start, length, None))["Body"]
        return data

    async def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        if start < 0 or not buffer:
            await self.get(path, start, len(buffer))
        else:
            check_path(path)
            await self._fetch(path, start, len(buffer), None, buffer.cast("B"))

    async def stream(
        self, path: str, start: int = 0, length: int | None = None, chunk: int = 4 << 20
    ) -> AsyncIterator[bytes]:
        """The range in requests of about 4 MiB, one ahead of the reader; a file that changes meanwhile is an error."""
        check_path(path)
        found = await head(self._client, path)
        if found is None:
            raise TargetNotFound(f"no object {path!r} at {self.url}", path=path)
        size = int(found["ContentLength"])
        end = size if length is None else start + length
        if start < 0 or end < start or end > size:
            raise _short(path, start, length, size)
        step = max(chunk, (4 << 20) // chunk * chunk)
        etag = found.get("ETag")

        def fetch(at: int) -> asyncio.Task[dict[str, Any]]:
            return asyncio.create_task(self._fetch(path, at, min(step, end - at), etag))

        ahead = fetch(start) if start < end else None
        offset = start
        try:
            while ahead is not None:
                data: bytes = (await ahead)["Body"]
                offset += len(data)
                ahead = fetch(offset) if offset < end else None
                for at in range(0, len(data), chunk):
                    yield data if len(data) <= chunk else data[at : at + chunk]
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait([ahead])
                if not ahead.cancelled():
                    ahead.exception()

    async def stat(self, path: str) -> ObjectInfo | None:
        found = await head(self._client, path)
        return None if found is None else ObjectInfo(path, int(found["ContentLength"]), modified_us(found))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        check_prefix(prefix)
        if self.destination.profile.sorted_list:
            async for info in self._pages(prefix):
                yield info
            return
        everything = [info async for info in self._pages(prefix)]
        everything.sort(key=lambda info: info.path.encode())
        for info in everything:
            yield info

    async def delete(self, path: str) -> None:
        await self._deleter.one(path)

    async def delete_many(self, paths: Sequence[str]) -> None:
        await self._deleter.many(paths)

    async def leftovers(self, prefix: str) -> AsyncIterator[Leftover]:
        check_prefix(prefix)
        root = self._root_prefix
        parameters: dict[str, Any] = {"Prefix": root + prefix}
        while True:
            try:
                page = await self._client.call("list_multipart_uploads", prefix, "list", **parameters)
            except TargetError as error:
                if error.where.get("s3_code") != "NoSuchUpload":
                    raise
                return  # rclone says so where there are none
            for upload in page.get("Uploads", ()):
                key, begun = str(upload["Key"]), upload["Initiated"]
                if key.startswith(root + prefix):
                    begun_us = int(begun.timestamp() * 1_000_000)
                    yield Leftover(key[len(root) :], str(upload["UploadId"]), "multipart upload", begun_us)
            more = {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
            if not page.get("IsTruncated"):
                return
            if not more["KeyMarker"] or more.items() <= parameters.items():
                raise TargetError(f"{self.url} broke off a listing of uploads of {prefix!r}", path=prefix)
            parameters |= {name: marker for name, marker in more.items() if marker}

    async def discard(self, leftover: Leftover) -> None:
        require_fence()
        try:
            await self._client.call(
                "abort_multipart_upload",
                leftover.path,
                "abort",
                Key=self._client.key(leftover.path),
                UploadId=leftover.name,
            )
        except TargetError as error:
            if not isinstance(error, TargetNotFound) and error.where.get("s3_code") != "NoSuchUpload":
                raise

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _look(self, attempts: int | None) -> None:
        await self._client.call("list_objects_v2", "", "reach", attempts=attempts, MaxKeys=1, Prefix=self._root_prefix)

    @property
    def _root_prefix(self) -> str:
        return f"{self.destination.prefix}/" if self.destination.prefix else ""

    async def _existing(self, path: str) -> ObjectInfo:
        info = await self.stat(path)
        if info is None:
            raise TargetNotFound(f"no object {path!r} at {self.url}", path=path)
        return info

    async def _fetch(
        self, path: str, start: int, length: int | None, etag: str | None, into: memoryview | None = None
    ) -> dict[str, Any]:
        """As :meth:`_fetch_once`; an answer that contradicts itself is asked again."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._fetch_once(path, start, length, etag, into)
            except _Contradiction:
                pass
        return await self._fetch_once(path, start, length, etag, into)

    async def _fetch_once(
        self, path: str, start: int, length: int | None, etag: str | None, into: memoryview | None
    ) -> dict[str, Any]:
        """Exactly this range, as "Body" or ``into`` memory. ``length`` is None or positive; with ``etag`` only of this
        version."""
        parameters: dict[str, Any] = {"Key": self._client.key(path)}
        ranged = start > 0 or length is not None
        if ranged:
            parameters["Range"] = f"bytes={start}-" if length is None else f"bytes={start}-{start + length - 1}"
        if etag is not None:
            parameters["IfMatch"] = etag
        try:
            response = await self._client.call(
                "get_object", path, "read", into=into, read=into is None, size=length or 1 << 30, **parameters
            )
        except TargetExists as error:  # 412 of IfMatch
            raise TargetError(f"{path!r} at {self.url} changed while it was read", path=path) from error
        except TargetError as error:
            if error.where.get("s3_code") not in ("InvalidRange", "416"):
                raise
            size = (await self._existing(path)).size
            if length is None and start == size:
                return {"Body": b""}
            raise _short(path, start, length, size) from error
        total = got = len(response["Body"]) if into is None else int(response["Filled"])
        if ranged:
            if "ContentRange" not in response and "ContentLength" in response:
                # OSS answers with all of the object when not all of the range is in it.
                size = int(response["ContentLength"])
                if length is None and start == size:
                    return {"Body": b""}
                if start + (length or 0) > size:
                    raise _short(path, start, length, size)
            found = _RANGE.match(str(response.get("ContentRange", "")))
            if found is None or int(found[1]) != start:
                if not got and length is None:  # an empty rest, as some stores answer it
                    return response
                message = f"{self.url} did not answer with the range of {path!r} that was asked for"
                raise _Contradiction(message, hint="this store does not know ranged reads", path=path, offset=start)
            total = int(found[3]) if found[3] != "*" else start + got
        wanted = total - start if length is None else length
        if got != wanted or got != int(response.get("ContentLength", got)):
            kind = _Contradiction if wanted <= total - start else TargetError
            raise _short(path, start, length, min(total, start + got), kind)
        return response

    async def _pages(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        root = self._root_prefix
        parameters: dict[str, Any] = {"Prefix": root + prefix}
        while True:
            page = await self._client.call("list_objects_v2", prefix, "list", **parameters)
            for item in page.get("Contents", ()):
                key = str(item["Key"])
                # Other programs make "directories" of empty objects.
                if key.startswith(root + prefix) and not key.endswith("/"):
                    yield ObjectInfo(key[len(root) :], int(item["Size"]), modified_us(item))
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated"):
                return
            if not token or token == parameters.get("ContinuationToken"):
                raise TargetError(f"{self.url} broke off a listing of {prefix!r} without a way to go on", path=prefix)
            parameters["ContinuationToken"] = token


class _Contradiction(TargetError):
    """An answer that is not what its own head says."""

    @property
    def kind(self) -> str:
        return TargetError.__name__


def _short(path: str, start: int, length: int | None, size: int, kind: type[TargetError] = TargetError) -> TargetError:
    until = "the end" if length is None else start + length
    message = f"{path!r} ends at {size}; bytes {start} to {until} were asked for"
    return kind(message, hint="the object was cut short at the destination", path=path, offset=start)
