"""A damaged cluster is archived right or not at all: what is archived is the ledger's log, whatever the files say."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import sim_damage
from google_crc32c import extend

from mover.config import Settings
from mover.errors import MoverError
from mover.media.archive import iter_blocks
from mover.media.log_entry import iter_log_entries
from mover.rootservice import archive
from mover.rootservice.session import open_session
from mover.store.observer import cluster_log
from mover.store.sim.cluster import create, grow
from mover.store.sim.plan import Plan


def archived(root: Path, cluster: Path) -> MoverError | None:
    """Archive what ``cluster`` has; the error that ended it."""
    settings = Settings(
        source=f"sim://{cluster}",
        dest=f"file://{root / 'dest'}",
        state_dir=root / "state",
        cluster_name="synthetic",
        compression="none",
    )

    async def whole() -> None:
        async with open_session(settings, need_source=True) as session:
            await archive.start(session)
            await archive.run(session, until_caught_up=True, stop=asyncio.Event())

    (root / "dest").mkdir()
    try:
        asyncio.run(whole())
    except MoverError as error:
        return error
    return None


def check(dest: Path, ledger: dict[str, Any], *, whole: bool) -> int:
    """Every archived log is the ledger's; with ``whole`` none is missing of those that all replicas know."""
    count = 0
    for pg in ledger["pgs"]:
        truth = {row[0]: row for row in pg["logs"]}
        place = f"{pg['tenant_id']}/clog/1/data/{pg['table_id']}/{pg['partition_id']}"
        last, accum = None, None
        paths = sorted(dest.glob(f"*/*/incarnation_1/{place}/*"), key=lambda path: int(path.name))
        for path in paths:
            for block in iter_blocks(path.read_bytes()):
                if block.kickoff() is not None:
                    last, accum = block.meta.max_log_id, block.meta.accum_checksum
                    continue
                for entry in iter_log_entries(block.raw()):
                    header = entry.header
                    assert header.log_id == last + 1
                    last = header.log_id
                    data = struct.pack("<Q", header.data_checksum & (1 << 64) - 1)
                    accum = extend(accum & 0xFFFFFFFF ^ 0xFFFFFFFF, data) ^ 0xFFFFFFFF
                    if last >= pg["start_log_id"]:
                        raw = bytearray(header.pack() + entry.body)
                        raw[73] &= 0x7F
                        assert hashlib.sha256(raw).hexdigest() == truth[last][3]
                        assert accum == truth[last][2]
                        count += 1
        if whole:
            assert last is not None and last >= min(one["max_confirmed_log_id"] for one in pg["replicas"])
    return count


def damaged(root: Path, kind: str, seed: int) -> None:
    cluster = root / "cluster"
    create(
        cluster,
        Plan(
            seed=seed,
            observers=3,
            pgs=4,
            blocks=1,
            block_size=8 << 10,
            log_size=192 << 10,
            entry_size=700,
            clog_fill=100 << 10,
            ilog_cursors=100,
        ),
    )
    paths = sim_damage.damage(cluster, kind, seed)
    if not paths:
        pytest.skip("this cluster has nothing of the kind")
    error = archived(root, cluster)
    ledger = json.loads((cluster / "ledger.json").read_text())
    count = check(root / "dest", ledger, whole=error is None)
    assert count or error is not None
    if error is not None:
        # Told where: the file, or the server it is on, or the log that is not what the index says.
        servers = [path.relative_to(cluster).parts[0].removeprefix("observer_") for path in paths]
        places = [*map(str, paths), *(f"10.0.0.{server}:" for server in servers)]
        assert any(place in str(error) for place in places) or "running checksum" in str(error), error


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    """A log that does not come is not waited for as long as a server under load deserves."""
    monkeypatch.setattr(cluster_log, "MISSING_SECONDS", 0.5)


@pytest.mark.parametrize("kind", sim_damage.KINDS)
def test_a_damaged_file_ends_archiving_or_does_not_matter(tmp_path, kind):
    damaged(tmp_path, kind, 2)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10, 20))
@pytest.mark.parametrize("kind", sim_damage.KINDS)
def test_damaged_files_of_other_clusters(tmp_path, kind, seed):
    damaged(tmp_path, kind, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 140))
def test_clusters_of_any_shape_are_archived(tmp_path, seed):
    from random import Random

    choose = Random(seed)
    cluster = tmp_path / "cluster"
    fill = choose.choice((64 << 10, 300 << 10, 1 << 26))
    plan = Plan(
        seed=seed,
        observers=choose.randint(1, 5),
        tenants=choose.randint(1, 2),
        pgs=choose.choice((2, 5, 9)),
        blocks=1,
        block_size=8 << 10,
        log_size=choose.choice((0, 64 << 10, 512 << 10, 2 << 20)),
        entry_size=choose.choice((128, 1000, 6000)),
        clog_fill=fill,
        ilog_cursors=choose.choice((16, 200, 20_000)),
        sys_pgs=choose.choice((0, 0, 2)),
        recycled=choose.random() < 0.7,
    )
    create(cluster, plan)
    for _ in range(choose.randint(0, 3)):
        recycle = 1 if fill < 1 << 20 and choose.random() < 0.3 else 0
        grow(cluster, recycle=recycle, log_size=choose.choice((None, 0, 256 << 10)))
    assert archived(tmp_path, cluster) is None
    check(tmp_path / "dest", json.loads((cluster / "ledger.json").read_text()), whole=True)
