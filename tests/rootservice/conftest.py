"""Catalogs for the coordinator's tests: in a file, and on a server that two coordinators can share."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mariadb import MariaDB
from sqlalchemy import event

from mover.rootservice.catalog import Catalog

_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "mariadb"])
def catalog_url_of(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty catalog, on each kind of database in turn."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'c.db'}"
    server: MariaDB = request.getfixturevalue("mariadb")
    return server.create_database(f"c{next(_numbers)}")


@pytest.fixture
async def catalog(catalog_url_of: str) -> AsyncIterator[Catalog]:
    """An open catalog whose database has the time of ``catalog.clock``."""
    opened = await Catalog.open(catalog_url_of)
    if opened.engine.dialect.name == "mysql":
        # NOW() of a session follows its variable `timestamp`.
        def turn(connection):
            connection.exec_driver_sql(f"SET timestamp = {opened.clock.now_us() / 1e6:.6f}")

        event.listen(opened.engine.sync_engine, "begin", turn)
    yield opened
    await opened.aclose()
