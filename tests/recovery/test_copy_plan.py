"""What a copy decides, as a pure function."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mover.media.backup_info import BackupInfo
from mover.media.copy_record import Copied, decode_copies, encode_copies
from mover.media.layout import FileKind, parse_path
from mover.recovery.copy_plan import LISTS, Selection, Wanted, closure, complete_sets, decide, spoiled
from mover.recovery.foreign_tree import TreeFile
from mover.target.base import ObjectInfo

BASE = "ob1/1/incarnation_1"
PATHS = [
    f"{BASE}/1001/data/backup_set_1/data/7/0/major_data/macro_block_1.0",
    f"{BASE}/1001/data/backup_set_1/data/7/0/major_data/macro_block_index_1",
    f"{BASE}/1001/data/backup_set_1/backup_1/normal_pg_list",
    f"{BASE}/1001/clog/1/data/7/0/1",
    f"{BASE}/1001/clog/1/index/7/0/1",
    f"{BASE}/clog_info/1_10.0.0.1_2882",
]


def wanted(path: str, size: int, modified: int = 1) -> Wanted:
    place = parse_path(path)
    assert place is not None
    return Wanted(TreeFile(path, size, place, modified), 1001, by_mover=False)


files = st.dictionaries(st.sampled_from(PATHS), st.tuples(st.integers(0, 5), st.integers(0, 2)))


@given(files, st.dictionaries(st.sampled_from(PATHS), st.integers(0, 5)), files)
def test_every_file_has_one_decision_and_the_right_one(
    source: dict[str, tuple[int, int]], there: dict[str, int], records: dict[str, tuple[int, int]]
) -> None:
    items = [wanted(path, *found) for path, found in source.items()]
    present = {path: ObjectInfo(path, size, 0) for path, size in there.items()}
    journal = {path: Copied(path, size, "0" * 32, size, modified) for path, (size, modified) in records.items()}
    plan = decide(items, present, journal)
    parts = [plan.copy, plan.replace, plan.prove, plan.kept, plan.conflicts]
    assert sorted(item.path for part in parts for item in part) == sorted(source)
    assert {item.path for item in plan.copy} == source.keys() - there.keys()
    for item in plan.kept:
        # Only what is there with the size that was proven, and has not changed at the source since.
        record = journal[item.path]
        assert (present[item.path].size, record.source_size) == (record.size, item.file.size)
        assert record.source_modified_us == item.file.modified_us
    for item in plan.replace:
        assert item.file.place.kind in {FileKind.ARCHIVE_DATA, FileKind.ARCHIVE_INDEX, FileKind.CLOG_INFO}
    for item in plan.conflicts:
        assert present[item.path].size != item.file.size
    ranks = [item.rank for item in plan.copy]
    assert ranks == sorted(ranks)
    assert all(0 <= rank <= LISTS for rank in ranks)


@given(files)
def test_what_was_copied_and_recorded_is_not_touched_again(source: dict[str, tuple[int, int]]) -> None:
    items = [wanted(path, *found) for path, found in source.items()]
    there = {item.path: ObjectInfo(item.path, item.file.size, 0) for item in items}
    rows = [Copied(i.path, i.file.size, "a" * 32, i.file.size, i.file.modified_us) for i in items]
    plan = decide(items, there, {row.path: row for row in decode_copies(encode_copies(rows))})
    assert len(plan.kept) == len(items)


def info(number: int, full: int, before: int, status: int = 0, *, deleted: bool = False) -> BackupInfo:
    made = BackupInfo(full, number, 0, number, 0, 0, 0, 0, before, 0, 2, 0, 1 if full == number else 2, status)
    return replace(made, is_mark_deleted=deleted)


CHAIN = (info(1, 1, 0), info(2, 1, 1), info(3, 1, 2, 2), info(4, 1, 2), info(5, 5, 0, deleted=True), info(6, 6, 0))


def test_a_set_brings_what_it_builds_on() -> None:
    assert closure(CHAIN, [4]) == {1, 2, 4}
    assert complete_sets(CHAIN, Selection()) == {1, 2, 4, 6}
    assert complete_sets(CHAIN, Selection(frozenset({4}))) == {1, 2, 4}
    assert complete_sets(CHAIN, Selection(archive=True)) == set()


def test_damage_spoils_what_builds_on_it() -> None:
    assert spoiled(CHAIN, [2]) >= {2, 4}
    assert not {1, 6} & spoiled(CHAIN, [2])


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=8))
def test_circles_of_sets_end(links: list[tuple[int, int]]) -> None:
    infos = [info(number, full, before) for number, (full, before) in enumerate(links, 1)]
    for number in range(1, len(infos) + 1):
        assert number in closure(infos, [number])
