"""One aiobotocore client for the life of a destination: its settings, deadlines and retries.

The settings are what OSS and other stores need beside Amazon's own (each line below says which). The retries are ours
and not botocore's, because every attempt needs a deadline (aiohttp has none for a peer that reads slowly or never
answers a 100-continue) and a body that is rewound, and because a signature must be made late: an attempt that waited
for its turn would carry an old time.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from contextlib import AsyncExitStack
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.handlers import add_expect_header

from mover.clock import Clock, SystemClock
from mover.errors import TargetError
from mover.target.paths import check_path
from mover.target.s3_body import PartBody
from mover.target.s3_errors import CALL_ERRORS, Failure, typed_error
from mover.target.threads import Threads
from mover.target.url import ObjectDestination

ATTEMPTS = 8  # about 20 s of waiting in all: a restart of the store
CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
ATTEMPT_SECONDS = 90.0
SLOWEST_BYTES_PER_SECOND = 64 << 10  # a body may take this long beside ATTEMPT_SECONDS
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 10.0
_INLINE_DIGEST = 64 << 10


class Digest:
    """MD5 of a body: what Content-MD5 sends ahead and what the ETag must be."""

    __slots__ = ("header", "hex", "raw")

    def __init__(self, content: memoryview | bytes) -> None:
        self.raw = hashlib.md5(content, usedforsecurity=False).digest()
        self.hex = self.raw.hex()
        self.header = base64.b64encode(self.raw).decode()


class S3Client:
    """Calls to one bucket. ``retries`` counts the attempts that had to be repeated."""

    def __init__(self, destination: ObjectDestination, *, clock: Clock | None = None, attempts: int = ATTEMPTS) -> None:
        self.destination = destination
        self.profile = destination.profile
        self.bucket = destination.bucket
        self.retries = 0
        self.slots = asyncio.Semaphore(destination.concurrency)  # parts under way, of all writers together
        self._attempts = attempts
        self._clock: Clock = clock or SystemClock()
        self._threads = Threads(2, "mover-digest")
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._cleaning: set[asyncio.Task[None]] = set()

    def key(self, path: str) -> str:
        """The object's key. Raises TargetError for a path that no destination takes."""
        check_path(path)
        return f"{self.destination.prefix}/{path}" if self.destination.prefix else path

    async def open(self) -> None:
        """Make the client; nothing is sent. Raises ConfigError."""
        destination = self.destination
        tls = destination.endpoint is None or destination.endpoint.startswith("https:")
        s3: dict[str, Any] = {"addressing_style": destination.addressing}  # OSS takes virtual hosts only
        if tls and destination.signature == "s3v4":
            # Over TLS the body's SHA-256 proves nothing that Content-MD5 does not, and costs 0.75 CPU-s/GB.
            s3["payload_signing_enabled"] = False
        config = AioConfig(
            signature_version=destination.signature,
            s3=s3,
            # The default sends aws-chunked bodies with a trailing CRC, which OSS and older stores refuse.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # Parts, and as many small requests beside them; fewer connections than tasks would throttle silently.
            max_pool_connections=2 * destination.concurrency + 8,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1},
            warm_up_loader_caches=True,  # reads its service model in a thread
        )
        try:
            self._client = await self._stack.enter_async_context(
                AioSession().create_client(
                    "s3",
                    region_name=destination.region,
                    endpoint_url=destination.endpoint,
                    aws_access_key_id=destination.access_id,
                    aws_secret_access_key=destination.access_key,
                    aws_session_token=destination.session_token,
                    config=config,
                )
            )
        except (*CALL_ERRORS, ValueError) as error:
            raise typed_error(error, "open", "", destination.url) from error
        # "Expect: 100-continue" costs a round trip per part, and a peer that never answers it is waited for for ever.
        self._client.meta.events.unregister("before-call.s3", add_expect_header)

    async def aclose(self) -> None:
        """Wait a moment for clean-ups that were left running, then close. Idempotent."""
        if self._cleaning:
            await asyncio.wait(self._cleaning, timeout=5.0)
            for task in self._cleaning:
                task.cancel()
            await asyncio.gather(*self._cleaning, return_exceptions=True)
        self._client = None
        await self._stack.aclose()
        self._threads.shutdown()

    async def call(
        self,
        operation: str,
        path: str,
        doing: str,
        *,
        body: memoryview | None = None,
        read: bool = False,
        size: int = 0,
        attempts: int | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """One S3 operation on the bucket, repeated with growing, random waits while that is worth it.

        Args:
            operation: botocore's method, as "put_object". It must be safe to repeat.
            path: the destination path, for error texts; ``doing`` is the verb before it.
            body: sent as Body, from where it is.
            read: read the answer's Body, within the attempt's deadline, and return it as "Body" (bytes).
            size: bytes this moves when there is no ``body``: they lengthen the deadline.
            attempts: at most so many; the client's default when None.

        Returns the parsed answer. Raises TargetNotFound, TargetExists (412), TargetError, UnreachableError and
        ConfigError; the store's code is ``where["s3_code"]``.
        """
        if self._client is None:
            raise TargetError(f"the destination {self.destination.url} is not open", path=path or None)
        limit = attempts or self._attempts
        seconds = ATTEMPT_SECONDS + max(size, len(body) if body is not None else 0) / SLOWEST_BYTES_PER_SECOND
        attempt = 0
        while True:
            attempt += 1
            if body is not None:
                parameters["Body"] = PartBody(body)
            try:
                async with asyncio.timeout(seconds):
                    method = getattr(self._client, operation)
                    response: dict[str, Any] = await method(Bucket=self.bucket, **parameters)
                    if read:
                        async with response["Body"] as stream:
                            response["Body"] = await stream.read()
                    return response
            except CALL_ERRORS as error:
                more = Failure.of(error).retries(error)
                if attempt >= (limit if more is None else more + 1):
                    raise typed_error(error, doing, path, self.destination.url) from error
            self.retries += 1
            longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (attempt - 1))
            await self._clock.sleep(random.uniform(longest / 2, longest))

    async def digest(self, content: memoryview) -> Digest:
        """The MD5 of a body, in a thread when it is large."""
        if len(content) <= _INLINE_DIGEST:
            return Digest(content)
        return await asyncio.get_running_loop().run_in_executor(self._threads, Digest, content)

    def clean_up(self, task: asyncio.Task[None]) -> None:
        """Keep a clean-up alive that its owner can not wait for; ``aclose`` gives it its last chance."""
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)
