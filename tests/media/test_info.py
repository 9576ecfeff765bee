"""Info files: round trips, and the transitions that OceanBase's protocol allows."""

from __future__ import annotations

from dataclasses import replace

import media_samples as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import FormatError, StateError
from mover.media import info
from mover.media.info import ArchiveStatus, BackupStatus
from mover.media.pg import PGKey

i64 = st.integers(-(2**63), 2**63 - 1)
u64 = st.integers(0, 2**64 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
names = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12)
backups = st.builds(info.BackupInfo, *[i64] * 12, i32, i32, i32, names, st.booleans())
rounds = st.builds(
    info.ArchiveRound, u64, i64, i64, i64, i32, is_mark_deleted=st.booleans(), is_mount_file_created=st.booleans()
)
pgs = st.builds(PGKey, u64, i32, i32)


@given(st.lists(backups, max_size=3).map(tuple), st.lists(rounds, max_size=3).map(tuple))
def test_lists_round_trip(one: tuple[info.BackupInfo, ...], two: tuple[info.ArchiveRound, ...]) -> None:
    assert info.decode_backup_infos(info.encode_backup_infos(one)) == one
    assert info.decode_archive_rounds(info.encode_archive_rounds(two)) == two


@given(
    st.lists(st.builds(info.BackupSetInfo, *[i64] * 7, u64, i32), max_size=3).map(tuple),
    st.lists(st.builds(info.TenantInfo, u64, i64, i64, i32, names, i64), max_size=3).map(tuple),
    st.lists(pgs, max_size=3, unique=True).map(tuple),
    st.builds(info.TenantLocality, u64, i64, i64, i32, names, names, names),
)
def test_other_files_round_trip(sets, tenants, keys, locality) -> None:
    assert info.decode_set_infos(info.encode_set_infos(sets)) == sets
    assert info.decode_tenant_infos(info.encode_tenant_infos(tenants)) == tenants
    assert info.decode_pg_list(info.encode_pg_list(keys)) == keys
    assert info.decode_tenant_locality(info.encode_tenant_locality(locality)) == locality


@given(st.lists(st.tuples(names, u64, st.integers(0, 2**62)), max_size=6))
def test_tenant_names_round_trip(seen: list[tuple[str, int, int]]) -> None:
    found = info.TenantNames(0, ())
    for schema, (name, tenant, at) in enumerate(seen):
        found = found.add(name, tenant, at, schema)
    assert info.decode_tenant_names(info.encode_tenant_names(found)) == found


def test_a_name_is_resolved_at_a_moment() -> None:
    found = info.TenantNames(0, ()).add("app", 1001, 100, 1).add("app", 1001, 150, 2).add("app", 1005, 200, 3)
    assert len(found.names[0].id_list) == 2
    assert [found.resolve("app", at) for at in (99, 100, 199, 200)] == [None, 1001, 1001, 1005]
    assert found.resolve("other", 100) is None
    with pytest.raises(StateError):
        found.add("app", 1001, 300, 2)


def test_diagnose_and_mount_file() -> None:
    assert info.decode_tenant_diagnose(info.encode_tenant_diagnose(1, ["a", "b"])) == ("tenant_id: 1", "a", "b")
    with pytest.raises(ValueError, match="line break"):
        info.encode_tenant_diagnose(1, ["a\nb"])
    assert info.decode_mount_file(info.encode_mount_file(12)) == 12
    for wrong in (b"", b"x", b"1\n", b"01", b"-1", "²".encode(), b"9" * 20):
        with pytest.raises(FormatError):
            info.decode_mount_file(wrong)


def test_a_file_of_another_type_is_refused() -> None:
    with pytest.raises(FormatError, match="data type 7"):
        info.decode_set_infos(info.encode_backup_infos([]))


# --- backups -------------------------------------------------------------------------------------------------------

DOING = made.backup(3, status=BackupStatus.DOING)


def test_numbers_grow_over_all_tenants_and_failures() -> None:
    assert info.next_set_id() == 1
    failed = made.backup(9, status=BackupStatus.FAILED)
    assert info.next_set_id([made.backup(2)], [made.backup(4), failed], []) == 10


def test_a_backup_begins_and_ends() -> None:
    begun = info.begin_backup((made.backup(1),), DOING)
    assert begun == (made.backup(1), DOING)
    assert info.begin_backup(begun, DOING) == begun
    done = replace(DOING, status=BackupStatus.SUCCESS)
    ended = info.finish_backup(begun, done)
    assert ended == (made.backup(1), done) == info.finish_backup(ended, done)
    with pytest.raises(StateError, match="already finished"):
        info.finish_backup(ended, replace(DOING, status=BackupStatus.FAILED))


def test_a_left_over_doing_becomes_failed() -> None:
    begun = info.begin_backup((DOING,), replace(DOING, inc_backup_set_id=4))
    assert [i.status for i in begun] == [BackupStatus.FAILED, BackupStatus.DOING]


def test_backups_cannot_be_overwritten() -> None:
    with pytest.raises(StateError, match="does not come after"):
        info.begin_backup((made.backup(3),), DOING)
    with pytest.raises(StateError, match="must begin as DOING"):
        info.begin_backup((), made.backup(3))
    with pytest.raises(StateError, match="not the last"):
        info.finish_backup((DOING,), replace(made.backup(3), cluster_version=1))
    with pytest.raises(StateError, match="not the last"):
        info.finish_backup((), made.backup(3))
    with pytest.raises(StateError, match="cannot finish"):
        info.finish_backup((DOING,), DOING)


def test_the_last_good_backup() -> None:
    items = (made.backup(1), made.backup(2), made.backup(3, status=BackupStatus.FAILED))
    assert info.last_success(items) == items[1]
    assert info.last_success(items, until=made.T0 + 1) == items[0]
    assert info.last_success(items, until=made.T0) is None
    marked = info.mark_deleted(items, {2})
    assert info.last_success(marked) == items[0]
    assert info.drop_deleted(marked) == (items[0], items[2])


def test_how_a_set_is_shown() -> None:
    stats = info.BackupSetInfo(2, made.T0, 2, 1, 10, 20 << 20, 9 << 20, 7)
    shown = info.set_view(1, made.backup(2, backup_type=2), stats, min_restore_scn=5)
    assert (shown["backup_type"], shown["status"], shown["macro_block_count"]) == ("I", "COMPLETED", 10)
    states = {info.set_status(made.backup(1, status=status)): status for status in (*BackupStatus, 77)}
    assert set(states) == {"COMPLETED", "RUNNING", "FAILED"}
    assert info.set_status(made.backup(1, is_mark_deleted=True)) == "DELETING"


def test_set_infos_are_replaced_by_number() -> None:
    one, two = (info.BackupSetInfo(n, 0, 2, 1, 1, 1, 1, 1) for n in (1, 2))
    assert info.append_set_info((one,), two) == (one, two)
    again = replace(two, pg_count=5)
    assert info.append_set_info((one, two), again) == (one, again)


def test_tenants_are_replaced_by_id() -> None:
    one, two = (info.TenantInfo(n, 0, 0, 0, "x", 1) for n in (1, 2))
    assert info.upsert_tenant((one,), two) == (one, two)
    again = replace(one, tenant_name="y")
    assert info.upsert_tenant((one, two), again) == (again, two)


# --- rounds --------------------------------------------------------------------------------------------------------

S = ArchiveStatus
ALLOWED = {
    S.STOP: {S.STOP},
    S.BEGINNING: {S.BEGINNING, S.DOING, S.STOPPING, S.STOP, S.INTERRUPTED},
    S.DOING: {S.DOING, S.STOPPING, S.STOP, S.INTERRUPTED},
    S.STOPPING: {S.STOPPING, S.STOP},
    S.INTERRUPTED: {S.INTERRUPTED, S.STOPPING, S.STOP},
}


@pytest.mark.parametrize("before", list(S))
@pytest.mark.parametrize("after", list(S))
def test_the_transition_table(before: ArchiveStatus, after: ArchiveStatus) -> None:
    allowed = after in ALLOWED.get(before, set())
    assert info.transition_allowed(before, after) is allowed
    old, new = made.round_of(1, status=before), made.round_of(1, status=after)
    if allowed:
        assert info.update_round((old,), new) == (new,)
    else:
        with pytest.raises(StateError, match="cannot go"):
            info.update_round((old,), new)


def test_rounds_count_up() -> None:
    first = info.begin_round((), 1, 100)
    assert (first[0].round_id, first[0].status, first[0].checkpoint_ts) == (1, S.BEGINNING, 0)
    second = info.begin_round(first, 1, 200)
    assert [(r.round_id, r.status) for r in second] == [(1, S.STOP), (2, S.BEGINNING)]
    assert info.begin_round(second, 1, 300, round_id=9)[-1].round_id == 9
    with pytest.raises(StateError, match="does not come after"):
        info.begin_round(second, 1, 300, round_id=2)
    assert info.current_round(second) == second[-1]
    assert info.current_round(()) is None


@pytest.mark.parametrize("status", [S.DOING, S.STOPPING, S.INTERRUPTED])
def test_a_round_begins_only_after_a_stop(status: ArchiveStatus) -> None:
    with pytest.raises(StateError, match=status.name):
        info.begin_round((made.round_of(1, status=status),), 1, 100)


def test_progress_never_goes_back() -> None:
    now = made.round_of()
    for wrong in (
        replace(now, checkpoint_ts=now.checkpoint_ts - 1),
        replace(now, start_ts=now.start_ts + 1),
        replace(now, round_id=now.round_id + 1),
        replace(now, tenant_id=5),
        replace(now, incarnation=2),
    ):
        with pytest.raises(StateError):
            info.update_round((now,), wrong)
    beginning = replace(now, status=S.BEGINNING)
    assert info.update_round((beginning,), replace(now, start_ts=now.start_ts + 1))
    with pytest.raises(StateError):
        info.update_round((), now)


def test_another_incarnation_is_refused() -> None:
    with pytest.raises(FormatError, match="incarnation 2"):
        info.decode_archive_rounds(info.encode_archive_rounds([made.round_of(incarnation=2)]))


def test_too_many_rounds() -> None:
    with pytest.raises(ValueError, match="at most"):
        info.encode_archive_rounds([made.round_of()] * (info.MAX_ROUNDS + 1))
