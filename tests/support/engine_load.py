"""Write load on a real engine, and the proof of what a restored copy of it must contain.

Every transaction with sequence number ``n`` of writer ``w`` touches four tables at once:

* ``moves``: rows_per_move rows (w, n, i); ``moves_part`` the same rows in four hash partitions;
* ``accounts``: takes an amount from one account and gives it to another: the sum never changes;
* ``progress``: (w, n), the writer's own counter.

So a state is consistent exactly when, per writer, moves and moves_part hold the same gapless 1..n, n equals the
counter, and the accounts sum to what they began with.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import asyncmy
import asyncmy.errors

ACCOUNTS = 50
OPENING_BALANCE = 1000


async def connect(options: dict[str, Any]) -> Any:
    """A connection from ``SeekdbServer.connection_options()``; autocommit, patient with a loaded machine."""
    return await asyncmy.connect(
        **options, autocommit=True, read_timeout=120, init_command="SET ob_query_timeout = 100000000"
    )


async def query(options: dict[str, Any], sql: str) -> list[tuple[Any, ...]]:
    """Rows of one statement on a connection of its own."""
    connection = await connect(options)
    try:
        async with connection.cursor() as cursor:
            await cursor.execute(sql)
            return list(await cursor.fetchall()) if cursor.description else []
    finally:
        await connection.ensure_closed()


async def scn_now(options: dict[str, Any]) -> int:
    """An SCN at or after everything that was committed before the call."""
    rows = await query(options, "SELECT MAX_SCN FROM oceanbase.V$OB_LOG_STAT")
    return int(rows[0][0])


async def minor_freeze(options: dict[str, Any]) -> None:
    await query(options, "ALTER SYSTEM MINOR FREEZE")


async def major_freeze(options: dict[str, Any]) -> bool:
    """Ask for a major freeze; False when one is running already."""
    try:
        await query(options, "ALTER SYSTEM MAJOR FREEZE")
    except asyncmy.errors.Error as error:
        if error.args and error.args[0] == 4744:
            return False
        raise
    return True


async def wait_major(options: dict[str, Any], seconds: float = 120, *, beyond: int = 0) -> None:
    """Until no major compaction runs and the last one was of a frozen SCN above ``beyond``."""
    async with asyncio.timeout(seconds):
        while True:
            ((status, last, frozen),) = await query(
                options, "SELECT STATUS, LAST_SCN, FROZEN_SCN FROM oceanbase.DBA_OB_MAJOR_COMPACTION"
            )
            if status == "IDLE" and last == frozen and last > beyond:
                return
            await asyncio.sleep(0.2)


async def major_compaction(options: dict[str, Any], seconds: float = 120) -> None:
    """A major freeze, and the compaction that it starts, to its end."""
    ((frozen,),) = await query(options, "SELECT FROZEN_SCN FROM oceanbase.DBA_OB_MAJOR_COMPACTION")
    await major_freeze(options)
    await wait_major(options, seconds, beyond=frozen)


@dataclass
class Load:
    """Writers that run until stopped. ``committed[w]`` is the last sequence number whose COMMIT was answered."""

    options: dict[str, Any]
    database: str = "test"
    writers: int = 2
    rows_per_move: int = 10
    row_bytes: int = 400
    pause: float = 0.0
    committed: dict[int, int] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stopping: bool = False

    async def create(self) -> None:
        """The tables and the accounts."""
        db = self.database
        await query(self.options, f"CREATE DATABASE IF NOT EXISTS {db}")
        columns = "w INT, n BIGINT, i INT, pad VARCHAR(8000), PRIMARY KEY (w, n, i)"
        await query(self.options, f"CREATE TABLE {db}.moves ({columns})")
        await query(self.options, f"CREATE TABLE {db}.moves_part ({columns}) PARTITION BY HASH(n) PARTITIONS 4")
        await query(self.options, f"CREATE TABLE {db}.progress (w INT PRIMARY KEY, n BIGINT)")
        await query(self.options, f"CREATE TABLE {db}.accounts (id INT PRIMARY KEY, balance BIGINT)")
        rows = ",".join(f"({i},{OPENING_BALANCE})" for i in range(ACCOUNTS))
        await query(self.options, f"INSERT INTO {db}.accounts VALUES {rows}")

    def start(self) -> None:
        """Begin or go on writing; each writer continues its own sequence."""
        self._stopping = False
        self._tasks = [asyncio.create_task(self._write(w)) for w in range(self.writers)]

    async def stop(self) -> dict[int, int]:
        """Let every writer finish its transaction; what was committed. Raises what a writer died of."""
        self._stopping = True
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*tasks)
        return dict(self.committed)

    async def until(self, moves: int, seconds: float = 60) -> None:
        """Until the writers together have committed ``moves`` more transactions than now."""
        goal = sum(self.committed.values()) + moves
        async with asyncio.timeout(seconds):
            while sum(self.committed.values()) < goal:
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    async def _write(self, writer: int) -> None:
        rng = random.Random(writer)
        db = self.database
        connection = await connect(self.options)
        try:
            await connection.autocommit(False)
            async with connection.cursor() as cursor:
                n = self.committed.get(writer, 0)
                while not self._stopping:
                    n += 1
                    rows = ",".join(
                        f"({writer},{n},{i},'{rng.randbytes(self.row_bytes // 2).hex()}')"
                        for i in range(self.rows_per_move)
                    )
                    giver, taker = rng.sample(range(ACCOUNTS), 2)
                    try:
                        for table in ("moves", "moves_part"):
                            await cursor.execute(f"INSERT INTO {db}.{table} VALUES {rows}")
                        # One order for all writers, or they deadlock.
                        for account, sign in sorted(((giver, "-"), (taker, "+"))):
                            await cursor.execute(
                                f"UPDATE {db}.accounts SET balance = balance {sign} {n % 7} WHERE id = {account}"
                            )
                        await cursor.execute(f"REPLACE INTO {db}.progress VALUES ({writer}, {n})")
                        await connection.commit()
                    except asyncmy.errors.Error:
                        # A lock conflict or a frozen tablet: nothing of n was committed, so n is tried again.
                        await connection.rollback()
                        n -= 1
                        await asyncio.sleep(0.05)
                        continue
                    self.committed[writer] = n
                    if self.pause:
                        await asyncio.sleep(self.pause)
        finally:
            connection.close()


async def check(
    options: dict[str, Any],
    at_least: dict[int, int],
    *,
    at_most: dict[int, int] | None = None,
    database: str = "test",
    row_bytes: int = 400,
) -> dict[int, int]:
    """Check a restored copy and return the last sequence number of each writer in it.

    Args:
        at_least: what must be there (committed before the backup ended).
        at_most: what must not be passed (a restore to a moment); None = no bound.

    Raises:
        AssertionError: says which invariant does not hold.
    """
    found: dict[int, int] = {}
    db = database
    ((total, count),) = await query(options, f"SELECT SUM(balance), COUNT(*) FROM {db}.accounts")
    assert (int(total), count) == (ACCOUNTS * OPENING_BALANCE, ACCOUNTS), f"accounts sum to {total} over {count}"
    counters = {int(w): int(n) for w, n in await query(options, f"SELECT w, n FROM {db}.progress")}
    per_table = {}
    for table in ("moves", "moves_part"):
        rows = await query(
            options,
            f"SELECT w, MAX(n), COUNT(DISTINCT n), COUNT(*), SUM(CRC32(pad)), MIN(LENGTH(pad)), MAX(LENGTH(pad))"
            f" FROM {db}.{table} GROUP BY w ORDER BY w",
        )
        per_table[table] = [tuple(int(value) for value in row) for row in rows]
        for writer, last, distinct, _, _, shortest, longest in per_table[table]:
            assert last == distinct, f"{table}: writer {writer} has {distinct} of {last} moves"
            assert last == counters.get(writer), f"{table}: writer {writer} at {last}, counter {counters.get(writer)}"
            assert shortest == longest == row_bytes // 2 * 2, f"{table}: writer {writer} has damaged rows"
            found[writer] = last
    assert per_table["moves"] == per_table["moves_part"], f"the two tables differ: {per_table}"
    for writer, last in at_least.items():
        assert found.get(writer, 0) >= last, f"writer {writer} ends at {found.get(writer, 0)}, {last} was committed"
    for writer, last in (at_most or {}).items():
        assert found.get(writer, 0) <= last, f"writer {writer} reaches {found.get(writer, 0)}, beyond {last}"
    return found
