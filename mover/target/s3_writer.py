"""A large object: parts in parallel while it is written, one request that makes it visible, and a check of the result.

Parts are sent from where they are. A part that is alone goes as a single PUT at commit, so the first one is kept until
there is a second. At most ``concurrency`` parts of all writers together are under way; the slot is taken only by a part
that is complete, so writers that wait for each other's callers can not lock each other out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from mover.errors import MoverError, TargetError, TargetExists
from mover.target.base import BytesPart, ObjectInfo, Part
from mover.target.s3_client import S3Client
from mover.target.s3_confirm import Confirmation, Mark, etag_of_parts
from mover.target.s3_put import NONCE, confirm_parts, head, new_nonce, nonce_of, put_whole, taken

ABORT_SECONDS = 15.0


class S3Writer:
    """See :class:`mover.target.base.Writer`.

    Args:
        way: how the store proves what it has.
        options: parameters of the object, for PutObject or CreateMultipartUpload.
    """

    def __init__(self, client: S3Client, path: str, way: Confirmation, options: Mapping[str, Any]) -> None:
        self._client = client
        self._path = path
        self._key = client.key(path)
        self._way = way
        self._options = options
        self._nonce = new_nonce()
        self._first: Part | None = None  # until there is a second
        self._last = 0  # bytes of the part before
        self._begin: asyncio.Task[str] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._confirmed: dict[int, tuple[Mark, str]] = {}  # by part number; with the ETag as the store said it
        self._publishing: asyncio.Task[ObjectInfo] | None = None
        self._error: MoverError | None = None
        self._state = "open"

    async def write(self, part: Part) -> None:
        try:
            self._require_open("write")
            self._raise_error()
            size = len(part.data)
            if not size:
                part.release()
                return
            if self._last:
                self._require_large(self._last)
            self._last = size
            if self._first is None and not self._tasks:
                self._first = part
                return
        except BaseException:
            part.release()
            self._state = "failed" if self._state == "open" else self._state
            raise
        try:
            if self._first is not None:
                await self._client.slots.acquire()
                first, self._first = self._first, None
                self._ship(first)
            await self._client.slots.acquire()
        except BaseException:
            # Some parts may be under way and this one is not: this writer can only be aborted now.
            part.release()
            self._state = "failed"
            raise
        self._ship(part)

    async def commit(self) -> ObjectInfo:
        self._require_open("commit")
        self._state = "failed"
        if self._tasks:
            await asyncio.gather(*self._tasks)
            self._raise_error()
            self._publishing = self._start(self._complete())
        else:
            only, self._first = self._first or BytesPart(b""), None
            self._publishing = self._start(self._put(only))
        # Shielded: a request that was cut off half way may still be carried out, and abort could not tell.
        info = await asyncio.shield(self._publishing)
        self._state = "committed"
        return info

    async def abort(self) -> None:
        if self._state in ("committed", "aborted"):
            return
        self._state = "aborted"
        first, self._first = self._first, None
        if first is not None:
            first.release()
        cleaning = asyncio.create_task(self._clean())
        self._client.clean_up(cleaning)
        # Not wait_for: a second cancel, or a store that hangs, must not take the clean-up's own life.
        await asyncio.wait([cleaning], timeout=ABORT_SECONDS)

    def _require_open(self, doing: str) -> None:
        if self._state != "open":
            raise TargetError(f"can not {doing} {self._path!r}: its writer is {self._state}", path=self._path)

    def _require_large(self, size: int) -> None:
        least = self._client.profile.min_part
        if size < least:
            message = f"part {max(1, len(self._tasks))} of {self._path!r} has {size} bytes and is not the last"
            raise TargetError(message, hint=f"this store takes no part below {least} bytes", path=self._path)

    def _start(self, work: Coroutine[Any, Any, ObjectInfo]) -> asyncio.Task[ObjectInfo]:
        return asyncio.create_task(work)

    async def _put(self, part: Part) -> ObjectInfo:
        try:
            return await put_whole(
                self._client, self._path, part.data, nonce=self._nonce, way=self._way, options=self._options
            )
        finally:
            part.release()

    def _ship(self, part: Part) -> None:
        """Send the next part, in a slot that was taken for it."""
        number = len(self._tasks) + 1
        if self._begin is None:
            self._begin = asyncio.create_task(self._begin_upload())
        size = len(part.data)
        task = asyncio.create_task(self._guarded(number, part.data))

        def over(_task: asyncio.Task[None]) -> None:
            # Not in the task: one that is cancelled before its first step never comes to its "finally".
            part.release()
            self._client.slots.release(size if number in self._confirmed else 0)

        task.add_done_callback(over)
        self._tasks.append(task)

    async def _guarded(self, number: int, content: memoryview) -> None:
        try:
            most = self._client.profile.max_parts
            if number > most:
                message = f"{self._path!r} has more than the {most} parts that the store takes"
                raise TargetError(message, hint="give a larger --part-size", path=self._path)
            await self._upload(number, content)
        except MoverError as error:
            self._error = self._error or error

    async def _begin_upload(self) -> str:
        parameters = {**self._options, **self._way.begin, "Metadata": {NONCE: self._nonce}}
        response = await self._client.call("create_multipart_upload", self._path, "begin", Key=self._key, **parameters)
        if not response.get("UploadId"):
            raise TargetError(f"{self._client.destination.url} began no upload of {self._path!r}", path=self._path)
        return str(response["UploadId"])

    async def _abandon(self, upload: str) -> None:
        try:
            await self._client.call("abort_multipart_upload", self._path, "abort", Key=self._key, UploadId=upload)
        except TargetError as error:
            if error.where.get("s3_code") != "NoSuchUpload":
                raise

    async def _upload(self, number: int, content: memoryview) -> None:
        mark = await self._client.digest(self._way.mark, content)
        assert self._begin is not None
        # Shielded: one part that is cancelled must not take the upload's id from the clean-up.
        upload = await asyncio.shield(self._begin)
        answer = await self._client.call(
            "upload_part",
            self._path,
            f"write part {number} of",
            body=content,
            Key=self._key,
            UploadId=upload,
            PartNumber=number,
            **self._way.asks(mark),
        )
        etag = str(answer.get("ETag") or "")
        refuted = self._way.refutes(mark, answer) if etag else "its answer has no ETag"
        if refuted is not None:
            message = f"{self._client.destination.url} did not store part {number} of {self._path!r} as it was sent"
            hint = "do not trust this store until its operator has explained it"
            raise TargetError(f"{message}: {refuted}", hint=hint, path=self._path)
        self._confirmed[number] = (mark, etag)

    async def _complete(self) -> ObjectInfo:
        assert self._begin is not None
        client = self._client
        upload = await asyncio.shield(self._begin)
        confirmed = [self._confirmed[number] for number in range(1, len(self._tasks) + 1)]
        marks = [mark for mark, _ in confirmed]
        parts = [
            {"PartNumber": number, "ETag": etag, **self._way.listed(mark)}
            for number, (mark, etag) in enumerate(confirmed, 1)
        ]
        if not client.profile.conditional_put and await head(client, self._path) is not None:
            raise taken(client, self._path)
        answer: dict[str, Any] = {}
        try:
            # The store may take long to put many parts together: the deadline grows with the size.
            answer = await client.call(
                "complete_multipart_upload",
                self._path,
                "complete",
                size=sum(mark.size for mark in marks) // 16,
                Key=self._key,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **client.profile.must_be_new,
            )
        except TargetError as error:
            # After a lost answer the repeated request finds the name taken or the upload gone: was it our own doing?
            if not isinstance(error, TargetExists) and error.where.get("s3_code") != "NoSuchUpload":
                raise
            found = await head(client, self._path)
            if found is None or not self._is_ours(found, [etag for _, etag in confirmed]):
                raise
        return await confirm_parts(client, self._path, marks, answer, self._nonce, self._way, self._options)

    def _is_ours(self, found: dict[str, Any], etags: Sequence[str]) -> bool:
        """Whether an object is the one of this upload: by its nonce, or by its ETag where metadata is not kept."""
        nonce = nonce_of(found)
        said = str(found.get("ETag", "")).strip('"').lower()
        return nonce == self._nonce or (nonce is None and said == etag_of_parts(etags))

    async def _clean(self) -> None:
        """Remove every trace, in the order that lets nothing come back: parts, publication, upload, object."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if self._publishing is not None:
                await asyncio.gather(self._publishing, return_exceptions=True)
            if self._begin is not None:
                await self._abandon(await self._begin)
            if self._publishing is not None:
                found = await head(self._client, self._path)
                if found is not None and nonce_of(found) == self._nonce:
                    await self._client.call("delete_object", self._path, "delete", Key=self._key)
        except MoverError:
            return  # the store is gone; what it holds is left to `mover sweep`

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
