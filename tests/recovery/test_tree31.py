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
async def test_every_damage_is_named(tmp_path: Path, layout: str, kind: str) -> None:
    for seed in range(3):
        await named_damage(tmp_path / str(seed), layout, kind, seed)


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
