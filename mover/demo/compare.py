"""Fingerprints of tables, and what differs between two sets of them."""

from __future__ import annotations

from dataclasses import dataclass

from mover.demo.workload import ACCOUNTS, OPENING_BALANCE, SCHEMA, connected, query
from mover.store.seekdb.server import SeekdbServer


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A table by its content: equal content gives equal fingerprints, whatever the order of rows."""

    rows: int
    checksum: int


Fingerprints = dict[str, Fingerprint]


async def fingerprints(server: SeekdbServer) -> Fingerprints:
    """Every table of the demo: its rows counted, the CRC-32s of its rows summed (there is no CHECKSUM TABLE)."""
    found: Fingerprints = {}
    async with connected(server) as connection:
        tables = await query(
            connection,
            f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{SCHEMA}' ORDER BY table_name",
        )
        for (table,) in tables:
            columns = await query(
                connection,
                "SELECT column_name FROM information_schema.columns"
                f" WHERE table_schema = '{SCHEMA}' AND table_name = '{table}' ORDER BY ordinal_position",
            )
            # Each column by itself first: text and binary columns cannot be joined into one string.
            parts = ", ".join(f"ifnull(crc32({column}), 'null')" for (column,) in columns)
            rows = await query(
                connection, f"SELECT count(*), ifnull(sum(crc32(concat_ws('|', {parts}))), 0) FROM {SCHEMA}.{table}"
            )
            found[str(table)] = Fingerprint(int(rows[0][0]), int(rows[0][1]))
    return found


async def books_balance(server: SeekdbServer) -> str | None:
    """None when the balances add up as every transaction left them, else what is wrong."""
    async with connected(server) as connection:
        rows = await query(connection, f"SELECT count(*), ifnull(sum(balance), 0) FROM {SCHEMA}.accounts")
    count, total = int(rows[0][0]), int(rows[0][1])
    if (count, total) == (ACCOUNTS, ACCOUNTS * OPENING_BALANCE):
        return None
    return f"accounts: {count} balances add up to {total}, not {ACCOUNTS} to {ACCOUNTS * OPENING_BALANCE}"


def differences(expected: Fingerprints, found: Fingerprints) -> list[str]:
    """One sentence per table that is not what it was; empty when all are."""
    result = []
    for table in sorted(expected.keys() | found.keys()):
        before, after = expected.get(table), found.get(table)
        if before is None:
            result.append(f"{table}: was not there, and is now")
        elif after is None:
            result.append(f"{table}: is missing")
        elif before.rows != after.rows:
            result.append(f"{table}: {after.rows} rows, not {before.rows}")
        elif before != after:
            result.append(
                f"{table}: {after.rows} rows as expected, but checksum {after.checksum}, not {before.checksum}"
            )
    return result
