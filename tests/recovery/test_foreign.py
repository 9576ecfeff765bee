"""Trees that OceanBase wrote, made by a writer that knows the documented format and nothing of mover."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import independent_writer
import pytest

from mover.media.layout import Layout
from mover.recovery.validate import ValidateReport, ValidateRequest, validate
from mover.repository.tree import Repository
from mover.target.files import FileTarget


async def check(root: Path, tree: Mapping[str, bytes]) -> ValidateReport:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    target = FileTarget(root, f"file://{root}", create=False)
    await target.open()
    try:
        return await validate(Repository(target, Layout("seekdb", 1), 1), ValidateRequest())
    finally:
        await target.aclose()


def whole_tree(later: bool) -> dict[str, bytes]:
    """The writer's tree without the index record of a data file that it leaves out."""
    tree = independent_writer.tree(later=later)
    (index,) = (name for name in tree if "/index/" in name)
    tree[index] = tree[index][:144]
    return tree


@pytest.mark.parametrize("later", [False, True], ids=["3.1.0", "later"])
async def test_every_cluster_and_tenant_found_is_checked_and_accepted(tmp_path: Path, later: bool) -> None:
    report = await check(tmp_path, whole_tree(later))
    assert report.violations == []
    assert report.checked_sets == [2]
    assert report.checked_rounds == [1, 2]


async def test_files_that_an_index_names_and_that_are_missing_are_damage(tmp_path: Path) -> None:
    tree = independent_writer.tree()
    (macro,) = (name for name in tree if name.endswith("macro_block_2.0"))
    del tree[macro]
    report = await check(tmp_path, tree)
    log, block = report.violations
    assert log.path.endswith("/data/1100611139453777/0/2") and "data file 2 is missing" in log.message
    assert block.path.endswith("macro_block_2.0") and "macro_block_index_2 names it" in block.message


async def test_a_flipped_bit_in_any_file_is_found_and_named(tmp_path: Path) -> None:
    whole = whole_tree(later=False)
    for number, name in enumerate(sorted(whole)):
        if not whole[name]:
            continue  # the archive_key of 3.1.0: that it is there is all it says
        content = bytearray(whole[name])
        content[len(content) // 2] ^= 1 << number % 8
        report = await check(tmp_path / str(number), {**whole, name: bytes(content)})
        assert name in {violation.path for violation in report.violations}, name
