"""One catalog, two ways to its tables: a server that speaks the MySQL protocol, and a file."""

import asyncio
from pathlib import Path

import pytest
from mariadb import MariaDB
from tiny_cluster import TinyCluster

from mover.errors import ConfigError, SourceError, UnreachableError
from mover.media.pg import PGKey
from mover.store.observer.catalog import Catalog
from mover.store.observer.source import open_observer
from mover.store.observer.tables import SqlTables

SERVER = ("127.0.0.1", 2882)


@pytest.fixture
def cluster(tmp_path: Path) -> TinyCluster:
    cluster = TinyCluster(tmp_path / "sim")
    for key in cluster.logs:
        cluster.append(key, b"one", b"two")
    return cluster


def load(mariadb: MariaDB, cluster: TinyCluster) -> None:
    """The cluster's tables as OceanBase has them: schema oceanbase, int is 64 bits."""
    statements = ["DROP DATABASE IF EXISTS oceanbase", "CREATE DATABASE oceanbase"]
    for name, rows in cluster.tables().items():
        if not rows:
            continue
        types = {k: "VARCHAR(256)" if isinstance(v, str) else "BIGINT UNSIGNED" for k, v in rows[0].items()}
        columns = ", ".join(f"`{column}` {kind}" for column, kind in types.items())
        statements.append(f"CREATE TABLE oceanbase.`{name}` ({columns})")
        for row in rows:
            values = ", ".join(repr(value) for value in row.values())
            statements.append(f"INSERT INTO oceanbase.`{name}` VALUES ({values})")
    mariadb.execute(*statements, "SELECT 1")


async def everything(catalog: Catalog) -> list[object]:
    return [
        await catalog.servers(),
        await catalog.identity(),
        await catalog.tenants(),
        await catalog.data_dirs(),
        await catalog.replicas(),
        await catalog.partitions(SERVER),
        await catalog.log_states(SERVER),
        await catalog.service_times(SERVER),
        await catalog.freezes(),
    ]


def test_sql_and_file_say_the_same(mariadb, cluster):
    load(mariadb, cluster)

    async def body() -> tuple[list[object], list[object]]:
        sql = Catalog(SqlTables(user=mariadb.user, password=mariadb.password, host="127.0.0.1", port=mariadb.port))
        file = open_observer(cluster.url)
        try:
            return await everything(sql), await everything(file.catalog)
        finally:
            await sql.aclose()
            await file.aclose()

    over_sql, from_file = asyncio.run(body())
    assert over_sql == from_file
    assert {replica.pg for replica in over_sql[4]} == {PGKey(*key) for key in cluster.logs}
    assert set(over_sql[6].values()) == {(2, 2)}


def test_the_log_of_a_cluster_that_is_asked_over_sql(mariadb, cluster, monkeypatch):
    load(mariadb, cluster)
    monkeypatch.setenv("MOVER_SOURCE_PASSWORD", mariadb.password)
    url = f"oceanbase://{mariadb.user}@127.0.0.1:{mariadb.port}/?data_dir={cluster.directory}/observer_{{id}}/store"

    async def body() -> int:
        observer = open_observer(url)
        log = await observer.log()
        try:
            for place in await observer.places():
                log.follow(place, 1, 0)
            return sum(run.last_log_id for run in await log.poll(1 << 30))
        finally:
            await log.aclose()
            await observer.aclose()

    assert asyncio.run(body()) == 2 * len(cluster.logs)


def test_what_a_catalog_refuses(mariadb, cluster, monkeypatch):
    load(mariadb, cluster)

    def ask(password: str, table: str) -> None:
        async def body() -> None:
            tables = SqlTables(user=mariadb.user, password=password, host="127.0.0.1", port=mariadb.port)
            try:
                await tables.rows(table, ("svr_ip",))
            finally:
                await tables.aclose()

        asyncio.run(body())

    with pytest.raises(SourceError, match="refused a catalog query"):
        ask(mariadb.password, "__all_nothing")
    with pytest.raises(UnreachableError, match="does not answer") as caught:
        ask("wrong", "__all_server")
    assert "wrong" not in str(caught.value) and mariadb.password not in repr(caught.value)

    async def old() -> None:
        observer = open_observer(cluster.url)
        await observer.servers()

    tables = cluster.tables()
    tables["__all_server"][0]["build_version"] = "4.2.1"
    monkeypatch.setattr(cluster, "tables", lambda: tables)
    cluster.save_catalog()
    with pytest.raises(SourceError, match=r"is version 4\.2\.1"):
        asyncio.run(old())


@pytest.mark.parametrize(
    "url",
    [
        "oceanbase://root:secret@h/",
        "oceanbase://h/?password=secret",
        "oceanbase://h/path",
        "oceanbase:///",
        "oceanbase://h:99999/",
        "oceanbase://h/?other=1",
        "sim://host/dir",
        "sim:///nowhere/at/all",
    ],
)
def test_urls_that_are_refused(url):
    with pytest.raises(ConfigError) as caught:
        open_observer(url)
    assert "secret" not in f"{caught.value} {caught.value.hint}"
