"""The executor without a cluster: batches run as tasks of this process's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import mover
from mover.errors import Cancelled, MoverError, StateError, UnreachableError
from mover.executor.base import (
    AbortState,
    Agent,
    AttemptId,
    Batch,
    BatchDone,
    BatchFailed,
    ExecutorEvent,
    HostInfo,
    TaskProgress,
)

LOCAL_HOST = "local"


class LocalExecutor:
    """Runs ``agent`` for each batch, at most ``capacity`` at a time.

    Args:
        agent: called with the batch and a function that reports counters; returns the receipt.
        capacity: batches at the same time; OceanBase runs one backup task per server.
        grace: seconds an attempt that is superseded, or left behind, gets to stop.
    """

    def __init__(self, agent: Agent, *, capacity: int = 1, grace: float = 30.0) -> None:
        self._agent = agent
        self._grace = grace
        self._slots = asyncio.Semaphore(capacity)
        self._capacity = capacity
        self._tasks: dict[AttemptId, asyncio.Task[Mapping[str, Any]]] = {}
        self._newest: dict[tuple[int, int], int] = {}
        # An AttemptId stands for its newest counters, so that a slow listener costs no memory.
        self._events: asyncio.Queue[AttemptId | ExecutorEvent] = asyncio.Queue()
        self._counters: dict[AttemptId, Mapping[str, int]] = {}

    async def __aenter__(self) -> LocalExecutor:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.abort(list(self._tasks), grace=self._grace)

    def hosts(self) -> Mapping[str, HostInfo]:
        return {LOCAL_HOST: HostInfo(LOCAL_HOST, self._capacity, mover.__version__)}

    async def submit(self, batch: Batch) -> None:
        work = (batch.id.job, batch.id.batch)
        newest = self._newest.get(work, -1)
        if batch.id.epoch < newest:
            raise StateError(f"batch {work} of epoch {batch.id.epoch} is fenced by epoch {newest}")
        if batch.id.epoch == newest:
            return  # accepted before, and perhaps over already: it does not run twice
        self._newest[work] = batch.id.epoch
        # A higher epoch supersedes: the older attempt must be gone before the newer one touches anything.
        older = [attempt for attempt in self._tasks if (attempt.job, attempt.batch) == work]
        states = await self.abort(older, grace=self._grace)
        if "unknown" in states.values():
            raise StateError(
                f"an older attempt at batch {work} does not stop",
                hint="it may still write: look at the destination, then run the command again",
            )
        if self._newest[work] != batch.id.epoch:
            raise StateError(f"batch {work} of epoch {batch.id.epoch} is fenced by epoch {self._newest[work]}")
        task = asyncio.create_task(self._run(batch), name=f"batch {batch.id}")
        self._tasks[batch.id] = task
        task.add_done_callback(lambda done: self._ended(batch.id, done))

    async def abort(self, ids: Collection[AttemptId], grace: float) -> Mapping[AttemptId, AbortState]:
        tasks = {attempt: self._tasks[attempt] for attempt in ids if attempt in self._tasks}
        for task in tasks.values():
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.values(), timeout=grace)
        return {attempt: "unknown" if attempt in tasks and not tasks[attempt].done() else "stopped" for attempt in ids}

    async def events(self) -> AsyncIterator[ExecutorEvent]:
        while True:
            event = await self._events.get()
            if isinstance(event, AttemptId):
                yield TaskProgress(event, self._counters.pop(event))
            else:
                yield event

    async def _run(self, batch: Batch) -> Mapping[str, Any]:
        def report(counters: Mapping[str, int]) -> None:
            if batch.id not in self._counters:
                self._events.put_nowait(batch.id)
            self._counters[batch.id] = counters

        async with self._slots:
            return await self._agent(batch, report)

    def _ended(self, attempt: AttemptId, task: asyncio.Task[Mapping[str, Any]]) -> None:
        # A callback, not code in the task: a task that is cancelled before its first step never runs any.
        del self._tasks[attempt]
        if task.cancelled():
            aborted = Cancelled(f"batch {attempt.batch} was aborted")
            self._events.put_nowait(BatchFailed(attempt, aborted, retryable=False))
            return
        failure = task.exception()
        if failure is None:
            self._events.put_nowait(BatchDone(attempt, task.result()))
            return
        if isinstance(failure, MoverError):
            error = failure
        else:
            error = MoverError(
                f"{type(failure).__name__}: {failure}", hint="this is a defect in mover: report it with the log"
            )
            error.__cause__ = failure
        self._events.put_nowait(BatchFailed(attempt, error, retryable=isinstance(failure, UnreachableError)))
