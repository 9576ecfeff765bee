"""The catalog's own clock: hosts that share a lease must not have to agree on the time.

SQLite has no server: its one host's clock is the catalog's, and each connection is given it as a function, so that
tests can turn it. What speaks the MySQL protocol is asked.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, DateTime
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

SQLITE_FUNCTION = "mover_now_us"


class catalog_now_us(FunctionElement[int]):  # noqa: N801 - a SQL function, spelled like SQLAlchemy's own
    """Microseconds since the epoch by the clock of the database, when the statement began."""

    type = BigInteger()
    inherit_cache = True


@compiles(catalog_now_us)
def _in_process(_element: catalog_now_us, _compiler: Any, **_kwargs: Any) -> str:
    return f"{SQLITE_FUNCTION}()"


@compiles(catalog_now_us, "mysql")
def _in_server(_element: catalog_now_us, _compiler: Any, **_kwargs: Any) -> str:
    return "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"


class time_of_us(FunctionElement[Any]):  # noqa: N801 - a SQL function
    """The time that a column of microseconds since the epoch names, in the zone of the session; NULL for 0."""

    type = DateTime()
    inherit_cache = True


@compiles(time_of_us)
def _sqlite_time(element: time_of_us, compiler: Any, **kwargs: Any) -> str:
    us = compiler.process(element.clauses, **kwargs)
    return f"STRFTIME('%Y-%m-%d %H:%M:%f', NULLIF({us}, 0) / 1000000.0, 'unixepoch', 'localtime')"


@compiles(time_of_us, "mysql")
def _mysql_time(element: time_of_us, compiler: Any, **kwargs: Any) -> str:
    return f"FROM_UNIXTIME(NULLIF({compiler.process(element.clauses, **kwargs)}, 0) / 1000000)"
