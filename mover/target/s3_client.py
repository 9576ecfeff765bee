"""Calls to one bucket: deadlines, retries, slots for parts, and threads for digests.

The retries are ours whoever sends, because every attempt needs a deadline and a body that is rewound, and because a
signature must be made late: an attempt that waited for its turn would carry an old time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from mover.clock import Clock, SystemClock
from mover.errors import TargetError
from mover.target.credentials import NoKeys, SignIn
from mover.target.fence import require_fence
from mover.target.paths import check_path
from mover.target.s3_confirm import Confirmation, choose
from mover.target.s3_errors import CallFailed, Failure, clock_skew, no_keys, span, typed_error
from mover.target.s3_operations import OPERATIONS
from mover.target.s3_sender import S3Sender, wait_out
from mover.target.slots import Slots
from mover.target.threads import Threads
from mover.target.url import ObjectDestination

_log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_SECONDS = 120.0  # a restart of the store, or of a switch on the way
ATTEMPTS = 3  # at least, however long they took
ATTEMPT_SECONDS = 90.0
SLOWEST_BYTES_PER_SECOND = 64 << 10  # a body may take this long beside ATTEMPT_SECONDS
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 10.0
_LONGEST_ASKED = 60.0  # a store may ask for a longer wait than ours, but not for ever
_INLINE_DIGEST = 64 << 10
_WORDS = 300  # of what a store says
_FOLLOWS = 60.0  # seconds: less is not why a signature was refused
_LOOKS = 1.0  # seconds between looks at the Date of answers


class S3Client:
    """Calls to one bucket.

    ``retries`` counts the attempts that had to be repeated. ``skew`` is what the store's clock was last ahead of this
    machine's, in seconds, by the Date of its answers; None before the first.

    Args:
        retry_for: seconds that a call is repeated for; ``ATTEMPTS`` it has in any case.
        attempts: how often it is tried, instead, whatever time that takes.
    """

    def __init__(
        self,
        destination: ObjectDestination,
        *,
        clock: Clock | None = None,
        retry_for: float = RETRY_SECONDS,
        attempts: int | None = None,
    ) -> None:
        self.destination = destination
        self.profile = destination.profile
        self.retries = 0
        self.skew: float | None = None
        self.sign_in = SignIn(destination)
        self.honoured: set[str] = set()  # what the store was once seen to do as it was asked: "lock"
        self.slots = Slots(destination.concurrency)  # parts under way, of all writers together
        self._attempts = attempts
        self._retry_for = retry_for
        self._clock: Clock = clock or SystemClock()
        self._threads = Threads(2, "mover-digest")
        self._sender: S3Sender | None = None
        self._cleaning: set[asyncio.Task[None]] = set()
        self._confirmation: asyncio.Task[Confirmation] | None = None
        self._next_look = 0.0

    def key(self, path: str) -> str:
        """The object's key. Raises TargetError for a path that no destination takes."""
        check_path(path)
        return f"{self.destination.prefix}/{path}" if self.destination.prefix else path

    async def open(self) -> None:
        """Make the sender ready; nothing is sent. Raises ConfigError."""
        # Parts, and as many small requests beside them.
        connections = 2 * self.slots.most + 8
        sender = make_sender(self.destination, self.sign_in, connections)
        try:
            await sender.open()
        except CallFailed as error:
            raise typed_error(error.failure, "open", "", self.destination.url) from error
        except ValueError as error:
            words = f"the request could not be made ({type(error).__name__})"
            raise typed_error(Failure(words=words), "open", "", self.destination.url) from error
        self._sender = sender

    async def aclose(self) -> None:
        """Wait a moment for clean-ups that were left running, then close. Idempotent."""
        if self._cleaning:
            await asyncio.wait(self._cleaning, timeout=5.0)
            for task in self._cleaning:
                task.cancel()
            await asyncio.gather(*self._cleaning, return_exceptions=True)
        if self._confirmation is not None:
            self._confirmation.cancel()
            await asyncio.gather(self._confirmation, return_exceptions=True)
        sender, self._sender = self._sender, None
        if sender is not None:
            await sender.aclose()
        self._threads.shutdown()

    async def call(
        self,
        operation: str,
        path: str,
        doing: str,
        *,
        body: memoryview | None = None,
        into: memoryview | None = None,
        read: bool = False,
        size: int = 0,
        attempts: int | None = None,
        final: Collection[str] = (),
        **parameters: Any,
    ) -> dict[str, Any]:
        """One S3 operation on the bucket, repeated with growing, random waits while that is worth it.

        Args:
            operation: botocore's method, as "put_object". It must be safe to repeat.
            path: the destination path, for error texts; ``doing`` is the verb before it.
            body, into, read: see :meth:`mover.target.s3_sender.S3Sender.send`.
            size: bytes this moves when there is no ``body``: they lengthen the deadline.
            attempts: at most so many; for as long as the client repeats calls when None.
            final: codes of the store that are the answer, and no reason to repeat it.

        Returns the parsed answer. An answer that lacks what the store always says (:class:`Operation`) is none: it is
        asked again, and what was written with none is returned at last, for the caller to doubt.

        Raises TargetNotFound, TargetExists (412), TargetError, UnreachableError and ConfigError; the store's code is
        ``where["s3_code"]``. Inside of a fence (:mod:`mover.target.fence`) also what that raises.
        """
        sender = self._sender
        if sender is None:
            raise TargetError(f"the destination {self.destination.url} is not open", path=path or None)
        limit = attempts or self._attempts
        moved = max([size, *(len(memory) for memory in (body, into) if memory is not None)])
        # One that hangs must leave time for another.
        silence = min(ATTEMPT_SECONDS, max(1.0, self._retry_for / 2))
        seconds = silence + moved / SLOWEST_BYTES_PER_SECOND
        if body is not None:
            silence += len(body) / SLOWEST_BYTES_PER_SECOND
        # Whatever it moves: a large one that is slow has its attempts, and nobody waits hours for one that is refused.
        over = self._clock.monotonic() + self._retry_for
        about = OPERATIONS[operation]
        attempt = 0
        corrected: set[str] = set()
        while True:
            attempt += 1
            generation = self.sign_in.generation
            if about.changes:
                require_fence()
            try:
                answer = await sender.send(
                    operation, parameters, body=body, into=into, read=read, seconds=seconds, silence=silence
                )
                doubted = about.method in ("GET", "HEAD") or attempt < min(ATTEMPTS, limit or ATTEMPTS)
                if doubted and not about.proven(answer):
                    raise CallFailed(Failure(words="the answer is not one of S3", transport=True))
            except CallFailed as error:
                failure = error.failure
                if failure.skew is not None:
                    self.skew = failure.skew
                if failure.slower:
                    self.slots.throttled()
                left = self._clock.monotonic() < over or attempt < ATTEMPTS
                again = failure.passes and failure.code not in final and (left if limit is None else attempt < limit)
                if not again and "new keys" not in corrected and failure.doubts_keys(self.sign_in.temporary):
                    changed = await self._new_keys(generation)
                    # Whoever replaces keys that have ended may be about to: once more after a wait.
                    again = changed or (failure.ended and "same keys" not in corrected)
                    corrected.add("new keys" if changed else "same keys")
                if not again and "clock" not in corrected and failure.stale:
                    corrected.add("clock")
                    self._follow_clock(failure.skew)
                    again = True
                if not again:
                    if failure.ended:
                        failure = dataclasses.replace(failure, hint=self.sign_in.how_to_renew)
                    if failure.code:
                        # What the store said may repeat what it was told: only clean words go on, in causes too.
                        failure = dataclasses.replace(failure, words=self.sign_in.hide(failure.words)[:_WORDS])
                        raise typed_error(failure, doing, path, self.destination.url) from None
                    raise typed_error(failure, doing, path, self.destination.url) from error
            else:
                self._note_clock(answer)
                return answer
            self.retries += 1
            longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(attempt - 1, 16))
            wait = random.uniform(longest / 2, longest)
            await self._clock.sleep(max(wait, min(failure.retry_after, _LONGEST_ASKED)))

    async def _new_keys(self, generation: int) -> bool:
        """Look for the keys anew; whether there are others. When nothing is found, what the store said stands."""
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                return await asyncio.wrap_future(self._threads.submit(self.sign_in.renew, generation))
        except TimeoutError:
            _log.warning("the keys of %s could not be renewed in time", self.destination.url)
            return False
        except NoKeys as error:
            _log.warning("the keys of %s could not be renewed: %s", self.destination.url, no_keys(error).words)
            return False

    def _follow_clock(self, skew: float | None) -> None:
        """Sign by the store's clock from now on, as Amazon's SDKs do: a backup that goes on is worth more."""
        if skew is None or abs(skew - self.sign_in.offset) < _FOLLOWS:
            return
        self.sign_in.offset = skew
        side = "behind" if skew > 0 else "ahead of"
        words = "this machine's clock is %s %s that of %s: requests are signed by the store's clock; use NTP"
        _log.warning(words, span(skew), side, self.destination.url)

    def _note_clock(self, answer: dict[str, Any]) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOKS
            found = clock_skew(answer["ResponseMetadata"]["HTTPHeaders"])
            self.skew = self.skew if found is None else found

    async def digest(self, work: Callable[[memoryview], T], content: memoryview) -> T:
        """``work(content)``, in a thread when it is large. Nobody reads ``content`` any more when this ends."""
        if len(content) <= _INLINE_DIGEST:
            return work(content)
        ended = asyncio.wrap_future(self._threads.submit(work, content))
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            await wait_out(ended)
            raise

    async def confirmation(self) -> Confirmation:
        """How this store proves what it has; found out once, where the profile leaves it open."""
        if self._confirmation is None or (self._confirmation.done() and self._confirmation.exception() is not None):
            self._confirmation = asyncio.create_task(choose(self))
        return await asyncio.shield(self._confirmation)

    def clean_up(self, task: asyncio.Task[None]) -> None:
        """Keep a clean-up alive that its owner can not wait for; ``aclose`` gives it its last chance."""
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)


def make_sender(destination: ObjectDestination, sign_in: SignIn, connections: int) -> S3Sender:
    """The one that the URL names. Imported here: each loads what the other is there to avoid."""
    if destination.sender == "fast":
        from mover.target.s3_fast import FastSender

        return FastSender(destination, sign_in, connections=connections)
    from mover.target.s3_stock import StockSender

    return StockSender(destination, sign_in, connections=connections)
