"""Trees of OceanBase 2.2.6x, 3.1.0 and later 3.1.x: what is in them, what can be restored, and every damage named."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tree31 import LAYOUTS, Tree, TreeSpec, build, damage, kinds

from mover.media.layout import Layout
from mover.recovery.validate import ValidateReport, ValidateRequest, validate
from mover.recovery.windows import all_windows
from mover.repository.tree import Repository
from mover.target.files import FileTarget

TENANT = 1001
SECONDS = 20  # for one small tree, on a machine that does other things too


@cache
def tree_of(layout: str) -> Tree:
    return build(TreeSpec(layout=layout, seed=4, tenants=2, pgs=3))


@cache
def small_tree(layout: str) -> Tree:
    """One tenant, little of everything: it is read some hundred times."""
    return build(TreeSpec(layout=layout, seed=9, tenants=1, pgs=2, blocks=3, per_file=2, block_size=6 << 10))


async def opened(root: Path) -> FileTarget:
    target = FileTarget(root, f"file://{root}", create=False)
    await target.open()
    return target


async def check(root: Path) -> ValidateReport:
    target = await opened(root)
    try:
        async with asyncio.timeout(SECONDS):
            return await validate(Repository(target, Layout("seekdb", 1), 1), ValidateRequest())
    finally:
        await target.aclose()


def expected_windows(tree: Tree) -> list[dict[str, Any]]:
    """What the writer knows: the last round, from the first good set to the checkpoint."""
    found = []
    for tenant in tree.truth["tenants"]:
        number = tenant["tenant_id"]
        rounds = [r for r in tree.truth["rounds"] if r["tenant_id"] == number]
        last = [r for r in rounds if r["round"] == rounds[-1]["round"]]
        sets = [s for s in tree.truth["sets"] if s["tenant_id"] == number and s["status"] == "success"]
        inside = [s for s in sets if last[0]["start_ts"] <= s["snapshot"] <= last[-1]["checkpoint_ts"]]
        found.append(
            {
                "tenant_id": number,
                "from_scn": min(s["snapshot"] for s in inside) * 1000,
                "until_scn": last[-1]["checkpoint_ts"] * 1000,
                "sets": sorted(s["set_id"] for s in inside),
            }
        )
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_a_whole_tree_is_accepted_and_its_windows_are_exact(tmp_path: Path, layout: str) -> None:
    tree = tree_of(layout)
    tree.write(tmp_path)
    report = await check(tmp_path)
    assert report.violations == []
    assert report.checked_files == len(tree.files)
    target = await opened(tmp_path)
    try:
        by_names = await all_windows(Repository(target, Layout("seekdb", 1), 1))
    finally:
        await target.aclose()
    for found in (report.as_json()["windows"], by_names.as_json()["windows"]):
        rows = [{key: window[key] for key in ("tenant_id", "from_scn", "until_scn", "sets")} for window in found]
        assert rows == expected_windows(tree)
    reasons = {hole.reason for hole in by_names.holes}
    assert "set 3: it failed" in reasons
    assert "round 1: log is archived, but no complete backup set lies in this round" in reasons
    assert reasons == {hole["reason"] for hole in report.as_json()["holes"]}


CASES = [(layout, kind) for layout in LAYOUTS for kind in kinds(small_tree(layout))]


async def named_damage(root: Path, layout: str, kind: str, seed: int) -> None:
    damaged = damage(small_tree(layout), kind, seed=seed)
    damaged.tree.write(root)
    report = await check(root)
    named = {found.path for found in (*report.violations, *report.notes)}
    if not damaged.silent:
        told = [found.message for found in report.violations]
        assert {finding.path for finding in damaged.findings} & named, f"{kind}: {damaged.findings}, told: {told}"


@pytest.mark.parametrize(("layout", "kind"), CASES[::9], ids=str)
async def test_damage_is_named(tmp_path: Path, layout: str, kind: str) -> None:
    await named_damage(tmp_path, layout, kind, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize(("layout", "kind"), CASES, ids=str)
async def test_every_damage_is_named(layout: str, kind: str) -> None:
    for seed in range(3):
        with TemporaryDirectory() as directory:  # pytest would keep them: some 200,000 files
            await named_damage(Path(directory), layout, kind, seed)


@settings(max_examples=8 if settings.default.max_examples <= 200 else settings.default.max_examples)
@given(st.sampled_from(LAYOUTS), st.data())
def test_whatever_the_bytes_are_it_ends(layout: str, data: st.DataObject) -> None:
    """A few files cut, patched, emptied or made of noise: a report, never a crash, in a bounded time."""
    files = dict(small_tree(layout).files)
    for path in data.draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=4, unique=True)):
        content = bytearray(files[path])
        start = data.draw(st.integers(0, len(content)))
        patch = data.draw(st.binary(max_size=64))
        files[path] = data.draw(
            st.sampled_from(
                [
                    bytes(content[:start]),
                    bytes(content[:start] + patch + content[start + len(patch) :]),
                    bytes(content[:start] + patch + content[start:]),
                    patch,
                    content[:start] + content[start:][::-1],
                ]
            )
        )
    with TemporaryDirectory() as directory:
        Tree(small_tree(layout).spec, files, {}).write(Path(directory))
        report = asyncio.run(check(Path(directory)))
        assert report.checked_files <= len(files)


async def test_what_failed_attempts_left_is_no_damage(tmp_path: Path) -> None:
    """A task that was tried again: its macro file and its index end too early, and nobody needs them."""
    tree = small_tree("3.1.0").copy()
    (index,) = tree.paths("/backup_set_1/", "major_data/macro_block_index_1", f"/{(TENANT << 40) | 3}/")
    tree.files[f"{index}.1"] = tree.files[index]
    tree.files[index] = b""  # the first attempt died before its first frame
    directory = index.rpartition("/")[0]
    (macro,) = tree.paths(directory, "macro_block_1.0")
    tree.files[f"{directory}/macro_block_1.7"] = tree.files[macro][:5000]
    tree.write(tmp_path)
    report = await check(tmp_path)
    assert report.violations == []
    noted = {note.path for note in report.notes}
    assert {index, f"{directory}/macro_block_1.7"} <= noted
    assert [window["sets"] for window in report.as_json()["windows"]] == [[1, 2, 4]]


async def test_a_piece_that_is_gone_ends_the_window_before_it(tmp_path: Path) -> None:
    tree = small_tree("3.1.5").copy()
    sets = [s["snapshot"] for s in tree.truth["sets"] if s["status"] == "success"]
    last = [r for r in tree.truth["rounds"] if r["round"] == 2]
    gone = last[1]["directory"]
    for path in tree.paths(gone + "/"):
        del tree.files[path]
    tree.write(tmp_path)
    report = (await check(tmp_path)).as_json()
    (window,) = report["windows"]
    assert (window["from_scn"], window["sets"]) == (sets[0] * 1000, [1, 2, 4])
    # As far as the piece before reaches, by its own info.
    assert sets[-1] * 1000 < window["until_scn"] <= last[0]["checkpoint_ts"] * 1000
    assert any("round 2: piece 4 is missing" in hole["reason"] for hole in report["holes"])


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_without_its_newest_block_a_pg_holds_the_window_back(tmp_path: Path, layout: str) -> None:
    damaged = damage(small_tree(layout), "archive_data.torn_tail", seed=2)
    damaged.tree.write(tmp_path)
    whole, report = expected_windows(small_tree(layout)), (await check(tmp_path)).as_json()
    (window,) = report["windows"]
    assert window["from_scn"] == whole[0]["from_scn"]
    assert window["until_scn"] <= whole[0]["until_scn"]
    assert report["violations"] == []
    torn = [hole for hole in report["holes"] if "torn tail of" in hole["reason"]]
    assert bool(torn) == (window["until_scn"] < whole[0]["until_scn"])
