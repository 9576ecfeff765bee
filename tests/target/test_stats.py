"""The counting wrapper: counts what went through, and nothing else changes."""

import pytest

from mover.errors import TargetNotFound
from mover.target.base import BytesPart
from mover.target.stats import StatsTarget
from mover.target.url import open_target


async def test_counts_requests_and_bytes(tmp_path):
    target = StatsTarget(await open_target(tmp_path.as_uri()))
    await target.put("a", b"12345")
    await target.append("log", 0, b"123")
    writer = await target.create("big")
    await writer.write(BytesPart(bytes(1000)))
    await writer.commit()
    assert await target.get("a") == b"12345"
    assert [len(piece) async for piece in target.stream("big", chunk=600)] == [600, 400]
    assert [info.path async for info in target.list("")] == ["a", "big", "log"]
    with pytest.raises(TargetNotFound):
        await target.get("none")
    await target.delete("a")
    assert await target.stat("a") is None
    await target.check()
    await target.aclose()
    stats = target.stats
    assert (stats.bytes_written, stats.bytes_read, stats.failures) == (1008, 1005, 1)
    assert stats.requests == {
        "put": 1, "append": 1, "create": 1, "write": 1, "commit": 1, "get": 2, "stream": 3, "list": 1, "delete": 1,
        "stat": 1, "check": 1,
    }  # fmt: skip
    assert stats.busy_seconds > 0
    assert stats.as_json()["bytes_read"] == 1005


async def test_leaving_a_stream_early_closes_it(tmp_path):
    target = StatsTarget(await open_target(tmp_path.as_uri()))
    await target.put("a", bytes(100))
    pieces = target.stream("a", chunk=10)
    assert len(await anext(pieces)) == 10
    await pieces.aclose()
    assert target.stats.bytes_read == 10
    await target.aclose()
