"""The content of every user table as count and sum of CRC-32, to compare a restored store with its source."""

from __future__ import annotations

from typing import Any

from engine_load import connect

_SYSTEM = "('oceanbase', 'information_schema', 'mysql', '__recyclebin', '__public', 'sys')"


async def table_prints(options: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """``database.table`` to (rows, sum of the CRC-32 of each row), over every user database."""
    connection = await connect(options)
    try:
        async with connection.cursor() as cursor:
            await cursor.execute(
                "SELECT table_schema, table_name, column_name FROM information_schema.columns"
                f" WHERE table_schema NOT IN {_SYSTEM} ORDER BY table_schema, table_name, ordinal_position"
            )
            columns: dict[str, list[str]] = {}
            for schema, table, column in await cursor.fetchall():
                columns.setdefault(f"{schema}.{table}", []).append(f"IFNULL(CRC32(`{column}`), 'null')")
            found = {}
            for table, parts in columns.items():
                await cursor.execute(f"SELECT COUNT(*), SUM(CRC32(CONCAT_WS(',', {', '.join(parts)}))) FROM {table}")
                ((rows, total),) = await cursor.fetchall()
                found[table] = (int(rows), int(total or 0))
            return found
    finally:
        await connection.ensure_closed()
