"""A synthetic cluster whose tables are in a server that speaks the MySQL protocol, as an observer's are."""

import asyncio
import dataclasses
import json
from pathlib import Path

import asyncmy
from sim_archive import Archive

from mover.recovery.validate import ValidateRequest, validate
from mover.rootservice import archive, backup
from mover.store.sim.cluster import grow
from mover.store.sim.sql import load


async def load_into(mariadb, cluster: Path) -> None:
    connection = await asyncmy.connect(
        host="127.0.0.1", port=mariadb.port, user=mariadb.user, password=mariadb.password, autocommit=True
    )
    try:
        await load(json.loads((cluster / "catalog.json").read_text()), connection)
    finally:
        connection.close()


def test_archive_and_backups_over_sql(mariadb, tmp_path):
    made = Archive(
        tmp_path, seed=9, observers=3, tenants=2, pgs=4, blocks=2, block_size=32 << 10, log_size=512 << 10
    )  # fmt: skip
    places = f"{made.cluster}/observer_{{id}}/store"
    made.settings = dataclasses.replace(
        made.settings,
        source=f"oceanbase://{mariadb.user}@127.0.0.1:{mariadb.port}/?data_dir={places}",
        source_password=mariadb.password,
    )
    asyncio.run(load_into(mariadb, made.cluster))
    made.run(archive.start)
    made.catch_up()
    first = made.check()

    def back_up(*, incremental: bool) -> object:
        return made.run(lambda session: backup.run(session, incremental=incremental, plan=False, stop=asyncio.Event()))

    back_up(incremental=False)
    grow(made.cluster, major=False)
    asyncio.run(load_into(mariadb, made.cluster))
    made.catch_up()
    sets = back_up(incremental=True)
    assert made.check() > first
    assert all(found.counters.reused for found in sets.sets)
    report = made.run(lambda session: validate(session.repository, ValidateRequest()), need_source=False)
    assert (report.violations, report.notes) == ([], [])
