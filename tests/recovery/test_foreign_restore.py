"""A tree of OceanBase's own, restored PG by PG: every block and log entry is the one that its writer knows."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tree31 import LAYOUTS, Tree, TreeSpec, build, damage

from mover.errors import IntegrityError, PreconditionError
from mover.recovery.foreign_restore import ForeignRestoreReport, ForeignRestoreRequest, foreign_tenants, restore_foreign
from mover.target.files import FileTarget

TENANT = 1001


@cache
def tree_of(layout: str) -> Tree:
    return build(TreeSpec(layout=layout, seed=6, tenants=2, pgs=3, block_size=6 << 10))


async def restored(root: Path, into: Path, **request: Any) -> ForeignRestoreReport:
    target = FileTarget(root, f"file://{root}", create=False)
    await target.open()
    try:
        wanted = ForeignRestoreRequest(into, **{"tenant_id": TENANT, **request})
        return await restore_foreign(target, await foreign_tenants(target), wanted)
    finally:
        await target.aclose()


def piece(directory: Path, row: dict[str, Any]) -> bytes:
    with (directory / row["file"]).open("rb") as file:
        file.seek(row["offset"])
        data = file.read(row["length"])
    assert len(data) == row["length"]
    return data


def log_of(tree: Tree, pg: tuple[int, ...]) -> list[list[Any]]:
    """What the writer says of the PG's log in the last round."""
    rounds = [r for r in tree.truth["rounds"] if r["tenant_id"] == TENANT]
    last = [r for r in rounds if r["round"] == rounds[-1]["round"]]
    return [log for r in last for one in r["pgs"] if tuple(one["pg"]) == pg for log in one["logs"]]


def entries(data: bytes) -> list[bytes]:
    out, at = [], 0
    while at < len(data):
        size = 105 + int.from_bytes(data[at + 32 : at + 40], "big")
        out.append(data[at : at + size])
        at += size
    return out


def plain(entry: bytes) -> bytes:
    """Without the mark of a batch commit, as the writer's digests are."""
    return entry[:73] + bytes([entry[73] & 0x7F]) + entry[74:]


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_every_block_and_entry_is_that_of_the_source(tmp_path: Path, layout: str) -> None:
    tree = tree_of(layout)
    tree.write(tmp_path / "dest")
    report = await restored(tmp_path / "dest", tmp_path / "out")
    assert report.set_id == 4
    (truth,) = (s for s in tree.truth["sets"] if s["tenant_id"] == TENANT and s["set_id"] == 4)
    whole = json.loads((tmp_path / "out/restored.json").read_text())
    assert len(whole["pgs"]) == len(truth["pgs"]) == 3
    for pg in truth["pgs"]:
        directory = tmp_path / "out" / str(TENANT) / f"{pg['pg'][0]}_{pg['pg'][1]}"
        inventory = json.loads((directory / "inventory.json").read_text())
        found = {
            (row["table_id"], row["data_version"], row["data_seq"]): hashlib.sha256(piece(directory, row)).hexdigest()
            for row in inventory["blocks"]
        }
        assert found == {(b["index_id"], b["data_version"], b["data_seq"]): b["sha256"] for b in pg["blocks"]}
        assert len(inventory["metas"]) == (4 if layout == "2.2.6" else 1)
        log = b"".join(piece(directory, row) for row in inventory["log"])
        expected = log_of(tree, tuple(pg["pg"]))
        assert [hashlib.sha256(plain(entry)).hexdigest() for entry in entries(log)][: len(expected)] == [
            row[3] for row in expected
        ][: len(entries(log))]
        assert inventory["log"][0]["from_log_id"] == expected[0][0]
        assert inventory["log"][-1]["accum_checksum"] == expected[len(entries(log)) - 1][2]
        for row in inventory["files"]:
            assert (directory / row["file"]).stat().st_size == row["size"]


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_the_log_ends_with_the_block_that_passes_the_moment(tmp_path: Path, layout: str) -> None:
    tree = tree_of(layout)
    tree.write(tmp_path / "dest")
    (truth,) = (s for s in tree.truth["sets"] if s["tenant_id"] == TENANT and s["set_id"] == 2)
    until = truth["snapshot"] + 30_000_000
    report = await restored(tmp_path / "dest", tmp_path / "out", until_scn=until * 1000)
    assert report.set_id == 2
    for pg in truth["pgs"]:
        directory = tmp_path / "out" / str(TENANT) / f"{pg['pg'][0]}_{pg['pg'][1]}"
        rows = json.loads((directory / "inventory.json").read_text())["log"]
        assert rows[-1]["checkpoint_ts"] >= until
        assert all(row["checkpoint_ts"] < until for row in rows[:-1])
        logs = log_of(tree, tuple(pg["pg"]))
        needed = [row[0] for row in logs if row[1] <= until]
        assert not needed or rows[-1]["until_log_id"] >= needed[-1]


async def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    tree = tree_of("3.1.0")
    tree.write(tmp_path / "dest")
    with pytest.raises(PreconditionError, match="no tenant is named"):
        await restored(tmp_path / "dest", tmp_path / "out", tenant_id=None)
    with pytest.raises(PreconditionError, match="cannot be restored"):
        await restored(tmp_path / "dest", tmp_path / "out", until_scn=5)
    with pytest.raises(PreconditionError, match="backup set 3"):
        await restored(tmp_path / "dest", tmp_path / "out", set_id=3)
    assert (await restored(tmp_path / "dest", tmp_path / "out", preview=True)).preview
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("x")
    with pytest.raises(PreconditionError, match="is not empty"):
        await restored(tmp_path / "dest", tmp_path / "full")


@pytest.mark.parametrize("kind", ["macro_block.payload", "archive_data.payload", "meta_file.payload"])
async def test_damage_ends_it_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    spec = TreeSpec(layout="3.1.0", seed=6, tenants=1, pgs=2, sets=("full",), rounds=1, block_size=6 << 10)
    damaged = damage(build(spec), kind, seed=2)
    damaged.tree.write(tmp_path / "dest")
    with pytest.raises((IntegrityError, PreconditionError)) as raised:
        await restored(tmp_path / "dest", tmp_path / "out")
    assert damaged.findings[0].path in str(raised.value.where.get("path")) + raised.value.message + str(
        raised.value.hint
    )
    assert not (tmp_path / "out").exists()
