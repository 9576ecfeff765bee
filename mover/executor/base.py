"""What an executor is to the coordinator: batches go in, events come out.

Execution is at least once, publication exactly once: retries, replica choice and epochs are the coordinator's, an
executor only runs what it is given, says how it ended, and aborts when told. One contract test suite
(tests/executor) runs on every implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from mover.errors import MoverError
from mover.media.pg import PGKey


@dataclass(frozen=True, slots=True, order=True)
class AttemptId:
    """One attempt at one batch. ``epoch`` is the coordinator's lease epoch << 20 | attempt: it only grows."""

    job: int
    batch: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Work for one host: PGs and the arguments of the job, values only."""

    id: AttemptId
    host: str
    pgs: tuple[PGKey, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """Counters of a running batch, totals so far. Best effort: a later one replaces an earlier one."""

    id: AttemptId
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BatchDone:
    """The batch ended well; its bytes are durable at the destination. ``receipt`` says what was written."""

    id: AttemptId
    receipt: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """The batch ended badly, or was aborted (``error.kind == "Cancelled"``)."""

    id: AttemptId
    error: MoverError
    retryable: bool


ExecutorEvent = TaskProgress | BatchDone | BatchFailed
AbortState = Literal["stopped", "unknown"]
Report = Callable[[Mapping[str, int]], None]
# What runs on the host: importable, so that an executor on many hosts can name it.
Agent = Callable[[Batch, Report], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class HostInfo:
    """A host that can run batches."""

    name: str
    capacity: int  # batches at the same time
    version: str  # mover's


class Executor(Protocol):
    """Runs batches. Use as an async context manager; leaving it aborts what still runs and waits for that."""

    async def __aenter__(self) -> Executor: ...

    async def __aexit__(self, *exc: object) -> None: ...

    def hosts(self) -> Mapping[str, HostInfo]: ...

    async def submit(self, batch: Batch) -> None:
        """Accept a batch. Idempotent by AttemptId. A host at its capacity queues it.

        Raises StateError when a newer epoch of the same (job, batch) was already accepted: the caller is fenced.
        """
        ...

    async def abort(self, ids: Collection[AttemptId], grace: float) -> Mapping[AttemptId, AbortState]:
        """Cancel attempts and wait at most ``grace`` seconds for each to stop. Idempotent."""
        ...

    def events(self) -> AsyncIterator[ExecutorEvent]:
        """Events of all batches. Exactly one terminal event (BatchDone, BatchFailed) per accepted attempt."""
        ...
