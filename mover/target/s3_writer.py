"""A large object: parts in parallel while it is written, one request that makes it visible, and a check of the result.

Memory: each writer fills one part buffer, and at most ``concurrency`` parts of all writers together are under way. The
slot is taken only by a part that is complete, so writers that wait for each other's callers can not lock each other
out.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from typing import Any

from mover.errors import MoverError, TargetError, TargetExists
from mover.target.base import ObjectInfo, Part
from mover.target.profiles import Profile
from mover.target.s3_client import Digest, S3Client
from mover.target.s3_put import confirm_parts, etag_of, head, new_nonce, nonce_of, put_whole, taken

ABORT_SECONDS = 15.0
_LARGEST_PART = 1 << 30
_STEPS = 10


def part_size(number: int, base: int, profile: Profile) -> int:
    """The size of part ``number`` (from 1): it doubles every tenth of the parts that the store allows.

    So a file of any size that the store takes fits, while a file of a few GiB never needs more memory than it has parts
    of ``base`` bytes. Parts may differ in size at every store we know.
    """
    return int(min(base << ((number - 1) * _STEPS // profile.max_parts), max(base, _LARGEST_PART)))


class S3Writer:
    """See :class:`mover.target.base.Writer`. A file smaller than one part goes as a single PUT at commit."""

    def __init__(self, client: S3Client, path: str, buffers: list[bytearray]) -> None:
        self._client = client
        self._path = path
        self._key = client.key(path)
        self._free = buffers  # of the target, for reuse: a fresh 8 MiB costs its page faults each time
        self._base = client.destination.part_size
        self._nonce = new_nonce()
        self._buffer = self._take_buffer(1)
        self._filled = 0
        self._size = 0
        self._begin: asyncio.Task[str] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._digests: dict[int, tuple[Digest, str]] = {}  # by part number; with the ETag as the store said it
        self._publishing: asyncio.Task[ObjectInfo] | None = None
        self._error: BaseException | None = None
        self._state = "open"

    async def write(self, part: Part) -> None:
        try:
            await self._append(part.data)
        finally:
            part.release()

    async def _append(self, view: memoryview) -> None:
        self._require_open("write")
        try:
            while view:
                if self._filled == len(self._buffer):
                    await self._ship()
                count = min(len(view), len(self._buffer) - self._filled)
                self._buffer[self._filled : self._filled + count] = view[:count]
                self._filled += count
                self._size += count
                view = view[count:]
        except BaseException:
            # Some of ``data`` may be in a part and some not: this writer can only be aborted now.
            self._state = "failed"
            raise

    async def commit(self) -> ObjectInfo:
        self._require_open("commit")
        self._state = "failed"
        if self._tasks:
            await self._ship()
            await asyncio.gather(*self._tasks)
            self._raise_error()
            self._publishing = self._start(self._complete())
        else:
            content = memoryview(self._buffer)[: self._filled]
            self._publishing = self._start(put_whole(self._client, self._path, content, nonce=self._nonce))
        # Shielded: a request that was cut off half way may still be carried out, and abort could not tell.
        info = await asyncio.shield(self._publishing)
        self._state = "committed"
        self._give_buffer(self._buffer)
        return info

    async def abort(self) -> None:
        if self._state in ("committed", "aborted"):
            return
        self._state = "aborted"
        cleaning = asyncio.create_task(self._clean())
        self._client.clean_up(cleaning)
        # Not wait_for: a second cancel, or a store that hangs, must not take the clean-up's own life.
        await asyncio.wait([cleaning], timeout=ABORT_SECONDS)

    def _require_open(self, doing: str) -> None:
        if self._state != "open":
            raise TargetError(f"can not {doing} {self._path!r}: its writer is {self._state}", path=self._path)

    def _start(self, work: Coroutine[Any, Any, ObjectInfo]) -> asyncio.Task[ObjectInfo]:
        return asyncio.create_task(work)

    async def _ship(self) -> None:
        """Send the buffer as the next part, when there is a slot for it."""
        await self._client.slots.acquire()
        number = len(self._tasks) + 1
        try:
            self._raise_error()
            if number > self._client.profile.max_parts:
                message = f"{self._path!r} is larger than {self._client.profile.max_parts} parts at {self._size} bytes"
                raise TargetError(message, hint="give a larger part_size in the URL", path=self._path)
        except BaseException:
            self._client.slots.release()
            raise
        if self._begin is None:
            self._begin = asyncio.create_task(self._begin_upload())
        part = self._upload(number, self._buffer, self._filled)
        self._tasks.append(asyncio.create_task(part))
        self._buffer = self._take_buffer(number + 1)
        self._filled = 0

    async def _begin_upload(self) -> str:
        response = await self._client.call(
            "create_multipart_upload", self._path, "begin", Key=self._key, Metadata={"mover-nonce": self._nonce}
        )
        return str(response["UploadId"])

    async def _upload(self, number: int, buffer: bytearray, size: int) -> None:
        try:
            content = memoryview(buffer)[:size]
            digest = await self._client.digest(content)
            assert self._begin is not None
            # Shielded: one part that is cancelled must not take the upload's id from the clean-up.
            upload = await asyncio.shield(self._begin)
            response = await self._client.call(
                "upload_part",
                self._path,
                f"write part {number} of",
                body=content,
                Key=self._key,
                UploadId=upload,
                PartNumber=number,
                ContentMD5=digest.header,
            )
            etag = str(response.get("ETag") or "")
            if etag_of(response) not in (digest.hex, None) or not etag:
                message = f"{self._client.destination.url} did not store part {number} of {self._path!r} as it was sent"
                hint = "do not trust this store until its operator has explained it"
                raise TargetError(message, hint=hint, path=self._path)
            self._digests[number] = (digest, etag)
        except MoverError as error:
            self._error = self._error or error
        finally:
            self._give_buffer(buffer)
            self._client.slots.release()

    async def _complete(self) -> ObjectInfo:
        assert self._begin is not None
        client = self._client
        upload = await asyncio.shield(self._begin)
        numbers = range(1, len(self._tasks) + 1)
        parts = [{"PartNumber": number, "ETag": self._digests[number][1]} for number in numbers]
        joined = b"".join(self._digests[number][0].raw for number in numbers)
        etag = f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if client.profile.send_conditional else {}
        if not client.profile.conditional_put and await head(client, self._path) is not None:
            raise taken(client, self._path)
        try:
            # The store may take long to put many parts together: the deadline grows with the size.
            await client.call(
                "complete_multipart_upload",
                self._path,
                "complete",
                size=self._size // 16,
                Key=self._key,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **condition,
            )
        except TargetError as error:
            # After a lost answer the repeated request finds the name taken or the upload gone: was it our own doing?
            if not isinstance(error, TargetExists) and error.where.get("s3_code") != "NoSuchUpload":
                raise
            found = await head(client, self._path)
            if found is None or nonce_of(found) != self._nonce:
                raise
        return await confirm_parts(client, self._path, self._size, etag, self._nonce)

    async def _clean(self) -> None:
        """Remove every trace, in the order that lets nothing come back: parts, publication, upload, object."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if self._publishing is not None:
                await asyncio.gather(self._publishing, return_exceptions=True)
            if self._begin is not None:
                upload = await self._begin
                try:
                    await self._client.call(
                        "abort_multipart_upload", self._path, "abort", Key=self._key, UploadId=upload
                    )
                except TargetError as error:
                    if error.where.get("s3_code") != "NoSuchUpload":
                        raise
            if self._publishing is not None:
                found = await head(self._client, self._path)
                if found is not None and nonce_of(found) == self._nonce:
                    await self._client.call("delete_object", self._path, "delete", Key=self._key)
        except MoverError:
            return  # the store is gone; what it holds is left to `mover sweep`
        finally:
            self._give_buffer(self._buffer)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _take_buffer(self, number: int) -> bytearray:
        size = part_size(number, self._base, self._client.profile)
        if self._free and size == len(self._free[-1]):
            return self._free.pop()
        return bytearray(size)

    def _give_buffer(self, buffer: bytearray) -> None:
        if len(buffer) == self._base and len(self._free) < self._client.destination.concurrency:
            self._free.append(buffer)
