"""A second copy of a tree is as good as the first, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import format_examples
import independent_writer
import pytest
from coordinator import session_on, small_and_fast  # noqa: F401
from faulty_target import FaultyTarget
from memory_store import MemoryStore
from sim_archive import Archive
from tree31 import LAYOUTS, TreeSpec, build, damage

from mover.errors import Cancelled, IntegrityError, PreconditionError, UnreachableError
from mover.media.layout import Layout
from mover.recovery.copy import CopyReport, CopyRequest, copy
from mover.recovery.copy_plan import Selection
from mover.recovery.validate import ValidateRequest, validate
from mover.recovery.windows import all_windows
from mover.repository.tree import Repository
from mover.rootservice import archive, backup
from mover.rootservice.session import Session
from mover.target.base import Target
from mover.target.url import open_target

pytestmark = pytest.mark.usefixtures("small_and_fast")


RING = next(data for name, data, _ in format_examples.examples() if name == "key ring")


def foreign_tree() -> dict[str, bytes]:
    """Of OceanBase 3.1.0, with two good sets: the writer's failed one is one here."""
    tree = independent_writer.tree()
    (index,) = (name for name in tree if "/index/" in name)
    tree[index] = tree[index][:144]
    infos = next(name for name in tree if name.endswith("tenant_data_backup_info"))
    second = independent_writer.backup_info(2, 0)
    first = independent_writer.backup_info(1, 0)
    tree[infos] = independent_writer.info(6, independent_writer.obj(independent_writer.array([first, second])))
    lists = [name for name in tree if "/backup_2/" in name]
    for name in lists:
        tree[name.replace("backup_set_2/backup_2", "backup_set_1/backup_1")] = tree[name]
    for name in [n for n in tree if "/backup_set_2/data/" in n]:
        one = name.replace("/backup_set_2/", "/backup_set_1/").replace("macro_block_2.0", "macro_block_1.0")
        tree[one.replace("index_2", "index_1")] = independent_writer.macro_index(1) if "index" in name else tree[name]
    return tree


def lay(root: Path, tree: Mapping[str, bytes]) -> None:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and "/mover_copy/" not in str(p)
    }


@asynccontextmanager
async def places(source: Path, destination: Path) -> AsyncIterator[tuple[Target, Target]]:
    one = await open_target(f"file://{source}", create=False)
    other = await open_target(f"file://{destination}")
    try:
        yield one, other
    finally:
        await one.aclose()
        await other.aclose()


async def copied(source: Path, destination: Path, **request: object) -> CopyReport:
    async with places(source, destination) as (one, other):
        return await copy(one, other, CopyRequest(memory=32 << 20, **request))  # type: ignore[arg-type]


async def violations(root: Path) -> list[str]:
    target = await open_target(f"file://{root}", create=False)
    try:
        report = await validate(Repository(target, Layout("seekdb", 1), 1), ValidateRequest())
        return [f"{found.path}: {found.message}" for found in report.violations]
    finally:
        await target.aclose()


@asynccontextmanager
async def mover_tree(root: Path, **settings: object) -> AsyncIterator[tuple[Session, MemoryStore]]:
    """Two sets and a round that goes on."""
    store = MemoryStore(seed=5, palf_file=16 << 10)
    for _ in range(4):
        store.change()
    async with session_on(root, store, **settings) as session:
        await archive.start(session)
        for number in range(2):
            await archive.run(session, until_caught_up=True, stop=asyncio.Event())
            await backup.run(session, incremental=number > 0, plan=False, stop=asyncio.Event())
            store.change(2)
        yield session, store


async def test_a_tree_of_mover_s_own_is_the_same_at_the_copy(tmp_path: Path) -> None:
    async with mover_tree(tmp_path) as (session, store):
        report = await copied(tmp_path / "dest", tmp_path / "copy")
        assert report.ok
        assert [found["backup_set_id"] for found in report.sets] == [1, 2]
        assert await violations(tmp_path / "copy") == []
        source = read(tmp_path / "dest")
        assert read(tmp_path / "copy") == source
        # Nothing to do: nothing is done.
        again = await copied(tmp_path / "dest", tmp_path / "copy")
        assert (again.copied_files, again.compared_files) == (0, 0)
        # What is new, comes: log that was appended, and a set.
        store.write_log(40)
        await archive.run(session, until_caught_up=True, stop=asyncio.Event())
        await backup.run(session, incremental=True, plan=False, stop=asyncio.Event())
        more = await copied(tmp_path / "dest", tmp_path / "copy")
        assert 0 < more.copied_files < len(source)
        assert read(tmp_path / "copy") == read(tmp_path / "dest")
        assert await violations(tmp_path / "copy") == []


async def test_an_encrypted_tree_is_copied_without_its_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    async with mover_tree(tmp_path, encrypt="aes-256-gcm", encrypt_key_file=key):
        report = await copied(tmp_path / "dest", tmp_path / "copy")
        assert report.ok
        assert [found["backup_set_id"] for found in report.sets] == [1, 2]
        assert read(tmp_path / "copy") == read(tmp_path / "dest")
        assert any("/mover_keys/" in name for name in read(tmp_path / "copy"))


async def test_a_tree_that_oceanbase_wrote(tmp_path: Path) -> None:
    lay(tmp_path / "dest", foreign_tree())
    assert await violations(tmp_path / "dest") == []
    report = await copied(tmp_path / "dest", tmp_path / "copy")
    assert report.ok
    assert await violations(tmp_path / "copy") == []
    assert read(tmp_path / "copy") == foreign_tree()
    async with places(tmp_path / "dest", tmp_path / "copy") as (one, other):
        of_one, of_other = [await all_windows(Repository(t, Layout("seekdb", 1), 1)) for t in (one, other)]
    assert of_one == of_other
    assert of_one.windows


async def test_log_behind_the_last_whole_block_stays_behind(tmp_path: Path) -> None:
    tree = foreign_tree()
    (index,) = (name for name in tree if "/index/" in name)
    (data,) = (name for name in tree if "/clog/2/data/" in name)
    whole = tree[data]
    tree[index] = b""  # the file is still open
    lay(tmp_path / "dest", {**tree, data: whole + whole[:50]})
    await copied(tmp_path / "dest", tmp_path / "copy")
    assert read(tmp_path / "copy")[data] == whole


async def test_it_dies_at_any_call_and_the_next_run_ends_it(tmp_path: Path) -> None:
    lay(tmp_path / "dest", foreign_tree())
    async with places(tmp_path / "dest", tmp_path / "count") as (one, other):
        counting = FaultyTarget(other)
        await copy(one, counting, CopyRequest(memory=32 << 20, concurrency=2))
        calls = counting.calls
    assert calls > len(foreign_tree()) - 3
    for number in range(calls):
        for after in (number % 2 == 0,):
            root = tmp_path / f"{number}-{after}"
            async with places(tmp_path / "dest", root) as (one, other):
                with pytest.raises(UnreachableError):
                    await copy(
                        one,
                        FaultyTarget(other, die_at=number, after=after),
                        CopyRequest(memory=32 << 20, concurrency=2),
                    )
                # Never a list of what is not there.
                found = read(root)
                for ending, part in (("tenant_data_backup_info", "/data/"), ("tenant_clog_backup_info", "/clog/")):
                    if any(name.endswith(ending) for name in found):
                        named = {n for n in foreign_tree() if f"/1001{part}" in n and not n.endswith("_backup_info")}
                        assert named <= found.keys()
                report = await copy(one, other, CopyRequest(memory=32 << 20))
                assert report.ok
            assert read(root) == foreign_tree()


async def test_damage_at_the_source_is_named_and_no_damaged_set_is_published(tmp_path: Path) -> None:
    tree = foreign_tree()
    for name in sorted(tree):
        if not tree[name]:
            continue
        damaged = bytearray(tree[name])
        damaged[len(damaged) // 2] ^= 4
        root = tmp_path / name.replace("/", "_")
        lay(root / "dest", {**tree, name: bytes(damaged)})
        with pytest.raises(IntegrityError) as raised:
            await copied(root / "dest", root / "copy")
        assert name in str(raised.value.where.get("path")) or name in raised.value.message, name
        assert not [path for path in read(root / "copy") if path.endswith("_backup_info")]
        report = await copied(root / "dest", root / "copy", skip_damaged=True)
        assert not report.ok
        if "/backup_set_2/" in name:
            assert [found["backup_set_id"] for found in report.skipped_sets] == [2]
            assert [found["backup_set_id"] for found in report.sets] == [1]
        if "/clog/2/data" in name:
            assert read(root / "copy")[name] == bytes(damaged), "the log around the damage comes along"
        again = await copied(root / "dest", root / "copy", skip_damaged=True)
        assert not again.ok, "the damage is found again"


async def test_another_tree_is_never_overwritten(tmp_path: Path) -> None:
    tree = foreign_tree()
    lay(tmp_path / "dest", tree)
    (data,) = (name for name in tree if "/clog/2/data/" in name)
    other = bytearray(tree[data])
    other[-200] ^= 1
    lay(tmp_path / "copy", {data: bytes(other)})
    with pytest.raises(PreconditionError, match="another file of this name"):
        await copied(tmp_path / "dest", tmp_path / "copy")
    assert read(tmp_path / "copy") == {data: bytes(other)}
    lay(tmp_path / "third", {data: bytes(other) + b"more"})
    with pytest.raises(PreconditionError, match="another file of this name"):
        await copied(tmp_path / "dest", tmp_path / "third")


async def test_sets_and_log_by_themselves(tmp_path: Path) -> None:
    lay(tmp_path / "dest", foreign_tree())
    report = await copied(tmp_path / "dest", tmp_path / "copy", selection=Selection(frozenset({2})))
    assert [found["backup_set_id"] for found in report.sets] == [2]
    assert not [name for name in read(tmp_path / "copy") if "/clog/" in name or "/backup_set_1/" in name]
    with pytest.raises(PreconditionError, match="backup set 7"):
        await copied(tmp_path / "dest", tmp_path / "copy", selection=Selection(frozenset({7})))
    # The rest comes later, and what was there first stays.
    await copied(tmp_path / "dest", tmp_path / "copy", selection=Selection(frozenset({1})))
    await copied(tmp_path / "dest", tmp_path / "copy", selection=Selection(archive=True))
    assert read(tmp_path / "copy") == foreign_tree()


async def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    lay(tmp_path / "dest", foreign_tree())
    report = await copied(tmp_path / "dest", tmp_path / "copy", plan=True)
    assert report.as_json()["files"] > 10
    assert read(tmp_path / "copy") == {}


async def test_a_copy_that_is_called_off_goes_on_later(tmp_path: Path) -> None:
    lay(tmp_path / "dest", foreign_tree())
    async with places(tmp_path / "dest", tmp_path / "copy") as (one, other):
        stop = asyncio.Event()
        stop.set()
        with pytest.raises(Cancelled):
            await copy(one, other, CopyRequest(memory=32 << 20), stop=stop)
        await copy(one, other, CopyRequest(memory=32 << 20))
    assert read(tmp_path / "copy") == foreign_tree()


async def test_the_keys_of_an_encrypted_tree_come_along_and_old_rings_go(tmp_path: Path) -> None:
    ring = {f"{independent_writer.CLUSTER}/mover_keys/{number}": RING for number in (2, 3)}
    lay(tmp_path / "dest", {**foreign_tree(), **{name: ring[name] for name in ring if name.endswith("/2")}})
    await copied(tmp_path / "dest", tmp_path / "copy")
    assert [name for name in read(tmp_path / "copy") if "/mover_keys/" in name] == [n for n in ring if n.endswith("/2")]
    for path in (tmp_path / "dest").rglob("mover_keys/2"):
        path.rename(path.with_name("3"))
    await copied(tmp_path / "dest", tmp_path / "copy")
    assert [name for name in read(tmp_path / "copy") if "/mover_keys/" in name] == [n for n in ring if n.endswith("/3")]


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_every_layout_is_copied_with_what_can_be_restored_of_it(tmp_path: Path, layout: str) -> None:
    tree = build(TreeSpec(layout=layout, seed=8, tenants=2, pgs=3, block_size=6 << 10))
    tree.write(tmp_path / "dest")
    report = await copied(tmp_path / "dest", tmp_path / "copy")
    assert report.ok
    # All but the entries of sets that failed: lists are made anew.
    lists = {name for name in tree.files if name.endswith("_data_backup_info")}
    found = read(tmp_path / "copy")
    assert found.keys() == tree.files.keys()
    growing = {name for name in tree.files if found[name] != tree.files[name]} - lists
    assert growing == set()
    assert await violations(tmp_path / "copy") == []
    async with places(tmp_path / "dest", tmp_path / "copy") as (one, other):
        of_one, of_other = [await all_windows(Repository(t, Layout("seekdb", 1), 1)) for t in (one, other)]
    assert of_one.windows == of_other.windows
    assert len(of_one.windows) == 2


async def test_one_set_of_the_later_layout_brings_the_directories_it_points_into(tmp_path: Path) -> None:
    tree = build(TreeSpec(layout="3.1.5", seed=8, tenants=1, pgs=2, block_size=6 << 10, sets=("full", "inc", "full")))
    tree.write(tmp_path / "dest")
    await copied(tmp_path / "dest", tmp_path / "copy", selection=Selection(frozenset({2}), archive=True))
    found = read(tmp_path / "copy")
    assert any("/backup_set_1_full" in name for name in found)
    assert not any("/backup_set_3_full" in name for name in found)
    assert await violations(tmp_path / "copy") == []
    async with places(tmp_path / "dest", tmp_path / "copy") as (_, other):
        (window,) = (await all_windows(Repository(other, Layout("seekdb", 1), 1))).windows
    assert window.sets == (1, 2)


@pytest.mark.parametrize("kind", ["macro_block.missing", "archive_data.missing", "macro_block_index.truncated.payload"])
async def test_what_is_not_there_is_found_before_anything_is_published(tmp_path: Path, kind: str) -> None:
    tree = build(TreeSpec(layout="3.1.0", seed=8, tenants=1, pgs=2, block_size=6 << 10))
    damage(tree, kind, seed=3).tree.write(tmp_path / "dest")
    with pytest.raises(IntegrityError, match="nothing was published"):
        await copied(tmp_path / "dest", tmp_path / "copy")
    assert not [name for name in read(tmp_path / "copy") if name.endswith("backup_info")]
    report = await copied(tmp_path / "dest", tmp_path / "copy", skip_damaged=True)
    assert not report.ok
    if kind.startswith("macro"):
        assert report.skipped_sets
        assert not [text for text in await violations(tmp_path / "copy") if "backup_set_" in text]


def test_what_mover_backed_up_of_a_cluster(tmp_path: Path) -> None:
    small = {"observers": 2, "tenants": 2, "pgs": 3, "blocks": 2, "block_size": 32 << 10, "log_size": 256 << 10}
    made = Archive(tmp_path, seed=5, clog_fill=128 << 10, **small)
    made.run(archive.start)
    made.catch_up()
    made.run(lambda session: backup.run(session, incremental=False, plan=False, stop=asyncio.Event()))
    report = asyncio.run(copied(made.dest, tmp_path / "copy"))
    assert report.ok
    assert {found["tenant_id"] for found in report.sets} == {1001, 1002}
    one, other = read(made.dest), read(tmp_path / "copy")
    assert one == other
    assert any(name.endswith("/mover_cluster") for name in other)
    assert asyncio.run(violations(tmp_path / "copy")) == []
    made.catch_up()
    asyncio.run(copied(made.dest, tmp_path / "copy"))
    assert read(made.dest) == read(tmp_path / "copy")
