"""What the engine says about itself: versions, log positions, sweeps, tablets and macroblocks, over SQL.

The views are OceanBase's, in schema ``oceanbase``; ``__all_virtual_*`` are not in SHOW TABLES but can be selected.
Never select ``start_key`` or ``end_key`` of the macroblock view raw: they hold key bytes declared as utf8 and break the
connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mover.errors import SourceError
from mover.store.seekdb.socket_path import short_socket_path
from mover.store.sql import SqlConnection

# The engine's own default of 10 s is passed by catalog scans while a loaded machine merges.
_QUERY_TIMEOUT_US = 100_000_000
_IN_LIST = 500


class LogStat(NamedTuple):
    """One row of V$OB_LOG_STAT. LSNs are byte positions, SCNs ns since the epoch."""

    base_lsn: int
    begin_lsn: int
    begin_scn: int
    end_lsn: int
    end_scn: int
    max_lsn: int
    max_scn: int


class Marker(NamedTuple):
    """When the engine's mark-and-sweep last freed macroblocks. The times are opaque texts in the engine's zone."""

    start_time: str
    last_end_time: str
    ran: bool  # False until the first sweep, 30 s after boot
    age_seconds: float  # since last_end_time, by the engine's clock

    @property
    def key(self) -> tuple[str, str]:
        """Equal before and after: nothing was freed in between, and the engine was not restarted."""
        return self.start_time, self.last_end_time


class MacroRow(NamedTuple):
    """One SSTable data macroblock that a tablet uses, as the catalog lists it."""

    tablet_id: int
    block_index: int
    logical_version: int
    data_seq: int
    block_type: str


class Catalog:
    """A connection to the engine, made when first used and again when it breaks. Safe for concurrent callers.

    Args:
        user, password: how to sign in. The password is in no error and no repr.
        socket: unix socket; used when ``host`` is None.
        host, port: TCP address.
    """

    def __init__(
        self,
        *,
        user: str = "root",
        password: str = "",
        socket: Path | None = None,
        host: str | None = None,
        port: int = 2881,
    ) -> None:
        self._user = user
        self._socket = socket
        self._host = host
        self._port = port
        silent = "check host and port in the source URL, and that the engine is running"
        if host is None:
            silent = "is the engine running on this base directory? use --offline for a stopped store"
        self._connection = SqlConnection(
            f"seekdb at {self.address}",
            self._where,
            user=user,
            password=password,
            denied="check the user in the source URL and the password in MOVER_SOURCE_PASSWORD",
            silent=silent,
            init_command=f"SET ob_query_timeout = {_QUERY_TIMEOUT_US}",
        )

    def _where(self) -> dict[str, Any]:
        if self._host:
            return {"host": self._host, "port": self._port}
        return {"unix_socket": short_socket_path(self._socket) if self._socket else None}

    @property
    def address(self) -> str:
        """Where the engine is looked for, for messages."""
        return f"{self._host}:{self._port}" if self._host else str(self._socket)

    def __repr__(self) -> str:
        return f"Catalog({self._user}@{self.address})"

    async def fetch(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a read-only statement.

        Raises:
            UnreachableError: nobody answers, or the sign-in was refused.
            SourceError: the engine refused the statement.
        """
        return await self._connection.fetch(sql, args)

    async def version(self) -> str:
        """The engine's version text, "OceanBase 4.3.5.3 seekdb (r1.4.0.0)"."""
        text = str((await self.fetch("SELECT @@version_comment"))[0][0])
        return text.split(" (Built", 1)[0]

    async def parameters(self, *names: str) -> dict[str, str]:
        """Values of engine parameters in the engine's spelling; unknown names are left out."""
        found = {}
        for name in names:
            for row in await self.fetch("SHOW PARAMETERS LIKE %s", (name.replace("_", r"\_"),)):
                if row[1] == name:
                    found[name] = str(row[3])
        return found

    async def server(self) -> tuple[str, int, int]:
        """Address and SQL port the engine states for itself, and the bytes of log disk it was given."""
        rows = await self.fetch("SELECT SVR_IP, SQL_PORT, LOG_DISK_ASSIGNED FROM oceanbase.V$OB_SERVER_STAT")
        if len(rows) != 1:
            raise SourceError(f"seekdb at {self.address} reports {len(rows)} servers, not 1")
        return str(rows[0][0]), int(rows[0][1]), int(rows[0][2])

    async def log_stat(self) -> LogStat:
        """Where the log begins and ends now."""
        rows = await self.fetch(
            "SELECT BASE_LSN, BEGIN_LSN, BEGIN_SCN, END_LSN, END_SCN, MAX_LSN, MAX_SCN FROM oceanbase.V$OB_LOG_STAT"
        )
        if len(rows) != 1:
            raise SourceError(
                f"seekdb at {self.address} reports {len(rows)} log streams, not 1",
                hint="the engine may still be booting; if it persists this is not a seekdb",
            )
        return LogStat(*map(int, rows[0]))

    async def marker(self) -> Marker:
        """The state of mark-and-sweep, which frees macroblocks every 30 s."""
        rows = await self.fetch(
            "SELECT CAST(start_time AS CHAR), CAST(last_end_time AS CHAR), last_end_time > '1980-01-01',"
            " TIMESTAMPDIFF(MICROSECOND, last_end_time, NOW(6))"
            " FROM oceanbase.__all_virtual_macro_block_marker_status"
        )
        if len(rows) != 1:
            raise SourceError(f"seekdb at {self.address} reports {len(rows)} mark-and-sweep states, not 1")
        start, end, ran, age = rows[0]
        return Marker(str(start), str(end), bool(ran), int(age) / 1_000_000)

    async def tablet_pointers(self) -> dict[int, str]:
        """Address of the current meta of every tablet; a new sstable always means a new address."""
        rows = await self.fetch("SELECT tablet_id, address FROM oceanbase.__all_virtual_tablet_pointer_status")
        return {int(tablet): str(address) for tablet, address in rows}

    async def macro_blocks(self, tablets: Iterable[int] | None = None) -> list[MacroRow]:
        """Data macroblocks that the sstables of ``tablets`` (None = all) are made of."""
        sql = (
            "SELECT tablet_id, macro_block_idx, macro_logic_version, data_seq, macro_block_type"
            " FROM oceanbase.__all_virtual_tablet_sstable_macro_info"
        )
        if tablets is None:
            rows = await self.fetch(sql)
        else:
            rows = []
            wanted = sorted(set(tablets))
            for at in range(0, len(wanted), _IN_LIST):
                part = ",".join(str(int(tablet)) for tablet in wanted[at : at + _IN_LIST])
                rows += await self.fetch(f"{sql} WHERE tablet_id IN ({part})")
        return [MacroRow(int(t), int(b), int(v), int(s), str(k)) for t, b, v, s, k in rows]

    async def tables(self) -> tuple[Mapping[str, Any], ...]:
        """Every user tablet with the database, table and partition it belongs to; indexes name their table."""
        rows = await self.fetch(
            "SELECT m.tablet_id, t.table_id, d.database_name, t.table_name, p.part_name, s.sub_part_name,"
            " o.table_name, t.compress_func_name"
            " FROM oceanbase.__all_tablet_to_table m"
            " JOIN oceanbase.__all_table t ON t.table_id = m.table_id"
            " JOIN oceanbase.__all_database d ON d.database_id = t.database_id"
            " LEFT JOIN oceanbase.__all_part p ON p.tablet_id = m.tablet_id"
            " LEFT JOIN oceanbase.__all_sub_part s ON s.tablet_id = m.tablet_id"
            " LEFT JOIN oceanbase.__all_table o ON o.table_id = t.data_table_id"
            " WHERE m.tablet_id > 200000 ORDER BY m.tablet_id"
        )
        names = ("tablet_id", "table_id", "database", "table", "partition", "subpartition", "index_of", "compression")
        return tuple(dict(zip(names, row, strict=True)) for row in rows)

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        await self._connection.aclose()
