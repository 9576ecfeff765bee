"""Tables of every storage kind, what is in them, and a writer that keeps changing them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncmy
import asyncmy.errors

from mover.errors import SourceError
from mover.store.seekdb.server import SeekdbServer

SCHEMA = "demo"
ROWS = 16_000  # in each of the four large tables
ROW_BYTES = 800
LOBS = 60
LOB_BYTES = 400_000
ACCOUNTS = 100
OPENING_BALANCE = 1000
_BATCH = 500
_COMPACTION_SECONDS = 20.0  # then the story goes on beside it

# The engine's default is zstd_1.3.8; it knows no lz4.
_LARGE = {
    "orders_zstd": "",
    "orders_zlib": " COMPRESSION = 'zlib_1.0'",
    "orders_plain": " COMPRESSION = 'none'",
    "orders_parted": " PARTITION BY HASH(id) PARTITIONS 4",
}
_DDL = (
    f"CREATE DATABASE IF NOT EXISTS {SCHEMA}",
    *(
        f"CREATE TABLE {SCHEMA}.{name} (id BIGINT PRIMARY KEY, customer INT NOT NULL, note VARCHAR(2000) NOT NULL,"
        f" amount DECIMAL(12,2) NOT NULL, KEY by_customer (customer)){tail}"
        for name, tail in _LARGE.items()
    ),
    f"CREATE TABLE {SCHEMA}.documents (id BIGINT PRIMARY KEY, title VARCHAR(100), body LONGTEXT, scan LONGBLOB)",
    f"CREATE TABLE {SCHEMA}.accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)",
)
_DESTRUCTION = (
    (f"DELETE FROM {SCHEMA}.orders_zstd WHERE id % 2 = 0", "deleted every second row of orders_zstd"),
    (f"DELETE FROM {SCHEMA}.orders_parted", "emptied orders_parted"),
    (f"UPDATE {SCHEMA}.accounts SET balance = 0", "set every balance to 0"),
    (f"DROP TABLE {SCHEMA}.documents", "dropped documents"),
)


@asynccontextmanager
async def connected(server: SeekdbServer) -> AsyncIterator[Any]:
    """A connection to the engine, autocommit on."""
    connection = await asyncmy.connect(**server.connection_options(), autocommit=True)
    try:
        yield connection
    except asyncmy.errors.Error as error:
        raise SourceError(
            f"the demo's engine refused a statement: {error}", hint="See log/seekdb.log in --dir."
        ) from error
    finally:
        # The engine may be gone already, and a demo that is cancelled must not wait for a farewell.
        connection.close()


async def query(connection: Any, statement: str) -> list[tuple[Any, ...]]:
    """All rows of a statement."""
    async with connection.cursor() as cursor:
        await cursor.execute(statement)
        return list(await cursor.fetchall() or ())


class Workload:
    """What the demo does to its engine. Deterministic but for the interleaving of the writer."""

    def __init__(self, server: SeekdbServer) -> None:
        self.server = server
        self.committed = 0  # transactions of the writer
        self._random = random.Random(20)
        words = ["".join(self._random.choices("aeioulnrstkm", k=self._random.randint(3, 10))) for _ in range(2000)]
        # Whole notes are drawn from a pool: making each from words would take longer than loading it.
        self._notes = [" ".join(self._random.choices(words, k=ROW_BYTES // 7))[:ROW_BYTES] for _ in range(3000)]
        self._next_id = ROWS + 1

    async def create(self) -> None:
        """The schema."""
        async with connected(self.server) as connection:
            for statement in _DDL:
                await query(connection, statement)

    async def load(self) -> int:
        """Fill every table; the number of rows."""
        await asyncio.gather(
            self._load_large("orders_zstd", "orders_zlib"),
            self._load_large("orders_plain", "orders_parted"),
            self._load_small(),
        )
        return ROWS * len(_LARGE) + LOBS + ACCOUNTS

    async def write(self, stop: asyncio.Event, per_second: float) -> None:
        """Commit transactions over several tables, about ``per_second`` of them, until ``stop``.

        Each moves money between two accounts, so the sum of all balances never changes at any moment.
        """
        async with connected(self.server) as connection:
            await connection.autocommit(False)
            began, done = time.monotonic(), 0
            while not stop.is_set():
                await self._transaction(connection)
                self.committed += 1
                done += 1
                ahead = began + done / per_second - time.monotonic()
                if ahead > 0:
                    await asyncio.sleep(ahead)

    async def minor_freeze(self) -> None:
        """Flush memtables into sstables; returns when it was accepted."""
        async with connected(self.server) as connection:
            await query(connection, "ALTER SYSTEM MINOR FREEZE")

    async def major_freeze(self) -> bool:
        """Freeze and compact everything; True when a compaction ended, False when it is taking its time.

        A young engine begins one by itself, and answers ours with a warning while it runs; that one counts too.
        """
        deadline = time.monotonic() + _COMPACTION_SECONDS
        state = "SELECT STATUS, FROZEN_SCN, LAST_SCN FROM oceanbase.DBA_OB_MAJOR_COMPACTION"
        async with connected(self.server) as connection:
            before = (await query(connection, state))[0][2]
            await query(connection, "ALTER SYSTEM MAJOR FREEZE")
            while time.monotonic() < deadline:
                # The view shows the old, finished compaction until the new one is under way.
                status, frozen, last = (await query(connection, state))[0]
                if status == "IDLE" and frozen == last and last != before:
                    return True
                await asyncio.sleep(0.2)
        return False

    async def moment(self) -> int:
        """The SCN of now: at or after everything committed."""
        async with connected(self.server) as connection:
            rows = await query(connection, "SELECT MAX_SCN FROM oceanbase.V$OB_LOG_STAT")
            return int(rows[0][0])

    async def destroy(self) -> list[str]:
        """What must never happen; says what it did."""
        async with connected(self.server) as connection:
            for statement, _ in _DESTRUCTION:
                await query(connection, statement)
        return [what for _, what in _DESTRUCTION]

    async def _load_large(self, *tables: str) -> None:
        async with connected(self.server) as connection:
            for table in tables:
                for first in range(1, ROWS + 1, _BATCH):
                    await self._insert(connection, table, [self._order(first + n) for n in range(_BATCH)])

    async def _load_small(self) -> None:
        async with connected(self.server) as connection, connection.cursor() as cursor:
            rows = [(n, OPENING_BALANCE) for n in range(1, ACCOUNTS + 1)]
            await cursor.executemany(f"INSERT INTO {SCHEMA}.accounts (id, balance) VALUES (%s, %s)", rows)
            for number in range(1, LOBS + 1):
                body = " ".join(self._random.choices(self._notes, k=LOB_BYTES // ROW_BYTES))
                scan = self._random.randbytes(LOB_BYTES // 2).hex()
                await cursor.execute(
                    f"INSERT INTO {SCHEMA}.documents VALUES (%s, %s, %s, unhex(%s))",
                    (number, f"document {number}", body, scan),
                )

    async def _insert(self, connection: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        async with connection.cursor() as cursor:
            statement = f"INSERT INTO {SCHEMA}.{table} (id, customer, note, amount) VALUES (%s, %s, %s, %s)"
            await cursor.executemany(statement, rows)

    async def _transaction(self, connection: Any) -> None:
        first, count = self._next_id, 20
        self._next_id += count
        giver, taker = self._random.sample(range(1, ACCOUNTS + 1), 2)
        amount = self._random.randint(1, 50)
        await self._insert(connection, "orders_zstd", [self._order(first + n) for n in range(count)])
        await self._insert(connection, "orders_parted", [self._order(first + n) for n in range(count)])
        async with connection.cursor() as cursor:
            update = f"UPDATE {SCHEMA}.accounts SET balance = balance + %s WHERE id = %s"
            await cursor.execute(update, (-amount, giver))
            await cursor.execute(update, (amount, taker))
        await connection.commit()

    def _order(self, number: int) -> tuple[Any, ...]:
        note = f"{number}: {self._random.choice(self._notes)}"
        return number, self._random.randint(1, 5000), note, f"{self._random.randint(1, 99999)}.{number % 100:02}"
