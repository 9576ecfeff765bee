"""Paths: built, parsed back, and never outside the tree."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import ConfigError
from mover.media.layout import FileKind, Layout, is_safe_relative, parse_path
from mover.media.pg import PGKey
from mover.target.paths import temporary_name

number = st.integers(0, 2**63 - 1)
LAYOUT = Layout("ob1", 3)
PG = PGKey(1001 << 40 | 50001, 2)


@given(number, number, number, number)
def test_paths_parse_back(tenant: int, a: int, b: int, c: int) -> None:
    pg = PGKey(b, c % 2**31)
    made = {
        LAYOUT.archive_data(tenant, a, pg, c): (FileKind.ARCHIVE_DATA, {"round_id": a, "file_id": c}),
        LAYOUT.archive_index(tenant, a, pg, c): (FileKind.ARCHIVE_INDEX, {"round_id": a, "file_id": c}),
        LAYOUT.archive_key(tenant, a, pg): (FileKind.ARCHIVE_KEY, {"round_id": a}),
        LAYOUT.macro_block(tenant, a, pg, b, c): (FileKind.MACRO_BLOCK, {"full_set": a, "inc_set": b, "sub": c}),
        LAYOUT.macro_block(tenant, a, pg, b, c, 7): (FileKind.MACRO_BLOCK, {"task_id": 7, "minor": True}),
        LAYOUT.macro_block_index(tenant, a, pg, b): (FileKind.MACRO_BLOCK_INDEX, {"inc_set": b, "retry": None}),
        LAYOUT.macro_block_index(tenant, a, pg, b, 5): (FileKind.MACRO_BLOCK_INDEX, {"inc_set": b, "retry": 5}),
        LAYOUT.meta_file(tenant, a, b, c): (FileKind.META_FILE, {"full_set": a, "inc_set": b, "task_id": c}),
        LAYOUT.meta_index_file(tenant, a, b, c): (FileKind.META_INDEX_FILE, {"task_id": c}),
        LAYOUT.manifest(tenant, a, b): (FileKind.MANIFEST, {"full_set": a, "inc_set": b}),
        LAYOUT.round_record(tenant, a): (FileKind.ROUND_RECORD, {"round_id": a}),
    }
    for path, (kind, fields) in made.items():
        found = LAYOUT.parse(path)
        assert found is not None
        assert (found.kind, found.tenant_id) == (kind, tenant)
        assert {name: getattr(found, name) for name in fields} == fields
        if found.table_id is not None:
            assert (found.table_id, found.partition_id) == (pg.table_id, pg.part_id)
        assert LAYOUT.absolute(LAYOUT.relative(path)) == path
        below = parse_path(f"mnt/nfs/{path}")
        assert below is not None
        assert dataclasses.replace(below, root="", path=path) == found


def test_the_documented_tree() -> None:
    base = "ob1/3/incarnation_1"
    assert LAYOUT.clog_info(1, "10.0.0.1", 2882) == f"{base}/clog_info/1_10.0.0.1_2882"
    assert LAYOUT.cluster_record(4) == f"{base}/1/clog/4/mover_cluster"
    assert LAYOUT.mount_file(4) == f"{base}/1/clog/4/mount_file"
    assert LAYOUT.tenant_data_backup_info(1001) == f"{base}/1001/data/tenant_data_backup_info"
    assert LAYOUT.backup_set_info(1001, 1) == f"{base}/1001/data/backup_set_1/backup_set_info"
    major = f"{base}/1001/data/backup_set_1/data/{PG.table_id}/2/major_data"
    assert LAYOUT.macro_block(1001, 1, PG, 2, 0) == f"{major}/macro_block_2.0"
    assert LAYOUT.macro_block_index(1001, 1, PG, 2, 1) == f"{major}/macro_block_index_2.1"
    for path in (LAYOUT.sys_pg_list(1001, 1, 2), LAYOUT.normal_pg_list(1001, 1, 2)):
        assert path.startswith(f"{base}/1001/data/backup_set_1/backup_2/")


def test_the_names_of_later_versions() -> None:
    base = "ob1/3/incarnation_1/1001"
    found = parse_path(f"{base}/data/backup_set_2_inc_20211225/meta_file_1")
    assert found is not None
    assert (found.kind, found.full_set, found.inc_set) == (FileKind.META_FILE, 2, None)
    found = parse_path(f"{base}/clog/1_3_20211225/data/5/0/1")
    assert found is not None
    assert (found.kind, found.round_id, found.piece_id) == (FileKind.ARCHIVE_DATA, 1, 3)
    old = parse_path(f"{base}/data/backup_set_1/data/5/0/macro_block_1.0")
    assert old is not None
    assert old.kind is FileKind.MACRO_BLOCK


@pytest.mark.parametrize(
    "path",
    [
        "",
        "ob1/3/incarnation_2/tenant_info",
        "ob1/3/incarnation_1/tenant_infos",
        "ob1/3/incarnation_1/../tenant_info",
        "ob1/03/incarnation_1/tenant_info",
        "ob1/3/incarnation_1/1/clog/1/data/5/0/01",
        "ob1/3/incarnation_1/1/data/backup_set_1/data/5/0/major_data/macro_block_index_1.0",
        "ob1/3/incarnation_1/1//clog/tenant_clog_backup_info",
        "other/3/incarnation_1/tenant_info",
        "ob1/4/incarnation_1/tenant_info",
        "x/ob1/3/incarnation_1/tenant_info",
    ],
)
def test_other_paths_are_not_of_this_tree(path: str) -> None:
    assert LAYOUT.parse(path) is None


def test_temporary_files_are_told_apart() -> None:
    found = LAYOUT.parse(LAYOUT.tenant_info() + ".tmp.1234")
    assert found is not None
    assert found.kind is FileKind.TEMPORARY


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\x00", "a?b", "a\\b", "é" * 65])
def test_cluster_names_that_cannot_be_directories(name: str) -> None:
    with pytest.raises(ConfigError):
        Layout(name, 1)


def test_cluster_ids_start_at_one() -> None:
    with pytest.raises(ConfigError):
        Layout("ob1", 0)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/.", "a\x00b", "a\\b"])
def test_unsafe_relative_paths(path: str) -> None:
    assert not is_safe_relative(path)
    with pytest.raises(ValueError, match="unsafe"):
        LAYOUT.absolute(path)


@given(st.text(max_size=40))
def test_any_text_is_either_a_path_of_the_tree_or_not(text: str) -> None:
    assert parse_path(text) is None
    found = parse_path(f"ob1/3/incarnation_1/{text}")
    assert found is None or found.kind is not None


def test_every_unfinished_name_that_a_destination_makes_is_temporary() -> None:
    for _ in range(50):
        found = parse_path(temporary_name("c/1/incarnation_1/1/data/backup_set_1/data/7/0/major_data/macro_block_1.0"))
        assert found is not None and found.kind is FileKind.TEMPORARY
