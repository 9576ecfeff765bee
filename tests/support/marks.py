"""Numbered transactions whose place in the log is known: what a restore to a moment must contain, and what not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from engine_load import connect, query


@dataclass
class Marks:
    """A table ``marks.t`` of numbers. ``scns[n]`` lies at or after the commit of n, and before that of n + 1."""

    options: dict[str, Any]
    scns: dict[int, int] = field(default_factory=dict)
    crowded: int = 0  # rows of ``marks.crowd``

    async def create(self) -> None:
        await query(self.options, "CREATE DATABASE marks")
        await query(self.options, "CREATE TABLE marks.t (n INT PRIMARY KEY, text VARCHAR(200))")
        await query(self.options, "CREATE TABLE marks.crowd (n INT PRIMARY KEY, text VARCHAR(200))")

    @property
    def last(self) -> int:
        return max(self.scns, default=0)

    async def write(self, count: int) -> None:
        """Commit ``count`` more, one transaction each, and note where."""
        connection = await connect(self.options)
        try:
            async with connection.cursor() as cursor:
                for n in range(self.last + 1, self.last + count + 1):
                    await cursor.execute(f"INSERT INTO marks.t VALUES ({n}, '{text(n)}')")
                    await cursor.execute("SELECT MAX_SCN FROM oceanbase.V$OB_LOG_STAT")
                    ((scn,),) = await cursor.fetchall()
                    self.scns[n] = int(scn)
        finally:
            await connection.ensure_closed()

    async def crowd(self, writers: int = 12, each: int = 12) -> None:
        """Many small transactions that commit at once, so that the engine may put several into one log group."""
        first, self.crowded = self.crowded, self.crowded + writers * each
        meeting = asyncio.Barrier(writers)

        async def one(writer: int) -> None:
            connection = await connect(self.options)
            try:
                async with connection.cursor() as cursor:
                    for i in range(each):
                        n = first + writer * each + i
                        await cursor.execute("BEGIN")
                        await cursor.execute(f"INSERT INTO marks.crowd VALUES ({n}, '{crowd_text(n)}')")
                        await meeting.wait()
                        await cursor.execute("COMMIT")
            finally:
                await connection.ensure_closed()

        await asyncio.gather(*(one(writer) for writer in range(writers)))

    def at(self, scn: int) -> tuple[int, int]:
        """The last mark that must be there at ``scn``, and the last that may be."""
        there = max((n for n, known in self.scns.items() if known <= scn), default=0)
        return there, there if self.scns.get(there) == scn else there + 1


def text(n: int) -> str:
    """What the row of mark n holds, and no other row."""
    return f"<mark {n:08d}>"


def crowd_text(n: int) -> str:
    """The same for the crowd."""
    return f"<crowd {n:08d}>"


async def found_marks(options: dict[str, Any]) -> int:
    """The last mark of a store, which must hold all before it and no other."""
    rows = await query(options, "SELECT n, text FROM marks.t ORDER BY n")
    assert [tuple(row) for row in rows] == [(n, text(n)) for n in range(1, len(rows) + 1)]
    return len(rows)
