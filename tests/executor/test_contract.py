"""The contract of an executor, on every implementation there is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from mover.errors import StateError, UnreachableError
from mover.executor.base import AttemptId, Batch, BatchDone, BatchFailed, ExecutorEvent, Report, TaskProgress
from mover.executor.local import LOCAL_HOST, LocalExecutor
from mover.media.pg import PGKey

PG = PGKey.of_log_stream(1, 1)


def batch(number: int, epoch: int = 1, **arguments: object) -> Batch:
    return Batch(AttemptId(1, number, epoch), LOCAL_HOST, (PG,), arguments)


async def agent(work: Batch, report: Report) -> Mapping[str, object]:
    report({"blocks_done": 1})
    match work.arguments.get("do"):
        case "hang":
            await asyncio.Event().wait()
        case "unreachable":
            raise UnreachableError("nobody there")
        case "defect":
            raise KeyError("oops")
    return {"batch": work.id.batch}


async def terminal(executor: LocalExecutor, count: int) -> list[ExecutorEvent]:
    found: list[ExecutorEvent] = []
    async with asyncio.timeout(10):
        async for event in executor.events():
            if not isinstance(event, TaskProgress):
                found.append(event)
                if len(found) == count:
                    break
    return found


async def test_each_batch_ends_in_exactly_one_terminal_event() -> None:
    async with LocalExecutor(agent) as executor:
        await executor.submit(batch(1))
        await executor.submit(batch(1))  # idempotent
        await executor.submit(batch(2, do="unreachable"))
        await executor.submit(batch(3, do="defect"))
        events = {event.id.batch: event for event in await terminal(executor, 3)}
    assert isinstance(events[1], BatchDone) and events[1].receipt == {"batch": 1}
    assert isinstance(events[2], BatchFailed) and events[2].retryable
    assert isinstance(events[3], BatchFailed) and not events[3].retryable and "KeyError" in events[3].error.message


async def test_abort_stops_a_running_attempt_and_says_so() -> None:
    async with LocalExecutor(agent) as executor:
        hanging = batch(1, do="hang")
        await executor.submit(hanging)
        assert await executor.abort([hanging.id], grace=5) == {hanging.id: "stopped"}
        (event,) = await terminal(executor, 1)
    assert isinstance(event, BatchFailed) and event.error.kind == "Cancelled"


async def test_a_higher_epoch_supersedes_and_a_lower_one_is_fenced() -> None:
    async with LocalExecutor(agent) as executor:
        await executor.submit(batch(1, epoch=1, do="hang"))
        await executor.submit(batch(1, epoch=2))
        with pytest.raises(StateError, match="fenced"):
            await executor.submit(batch(1, epoch=1))
        first, second = await terminal(executor, 2)
    assert isinstance(first, BatchFailed) and first.id.epoch == 1
    assert isinstance(second, BatchDone) and second.id.epoch == 2


async def test_leaving_the_executor_leaves_nothing_running() -> None:
    before = asyncio.all_tasks()
    async with LocalExecutor(agent) as executor:
        await executor.submit(batch(1, do="hang"))
    assert asyncio.all_tasks() == before


async def test_an_attempt_that_is_over_does_not_run_again() -> None:
    async with LocalExecutor(agent) as executor:
        await executor.submit(batch(1))
        await terminal(executor, 1)
        await executor.submit(batch(1))
        await executor.submit(batch(2))
        (event,) = await terminal(executor, 1)
    assert event.id.batch == 2


async def test_an_older_attempt_that_does_not_stop_keeps_the_newer_one_out() -> None:
    let_go = asyncio.Event()

    async def stubborn(work: Batch, _report: Report) -> Mapping[str, object]:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return {}

    async with LocalExecutor(stubborn, grace=0.01) as executor:
        await executor.submit(batch(1, epoch=1))
        await asyncio.sleep(0)
        with pytest.raises(StateError, match="does not stop"):
            await executor.submit(batch(1, epoch=2))
        let_go.set()
        await terminal(executor, 1)


async def test_a_slow_listener_sees_the_newest_counters_and_costs_no_memory() -> None:
    async def busy(_work: Batch, report: Report) -> Mapping[str, object]:
        for number in range(1000):
            report({"blocks_done": number})
        return {}

    async with LocalExecutor(busy) as executor:
        await executor.submit(batch(1))
        events = []
        async with asyncio.timeout(10):
            async for event in executor.events():
                events.append(event)
                if isinstance(event, BatchDone):
                    break
    assert [type(event) for event in events] == [TaskProgress, BatchDone]
    assert isinstance(events[0], TaskProgress) and events[0].counters == {"blocks_done": 999}
