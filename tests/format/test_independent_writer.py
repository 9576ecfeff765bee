"""A tree written from the documented format alone is read by mover, field for field."""

from __future__ import annotations

import independent_writer as writer
import pytest

from mover.errors import FormatError
from mover.media import info
from mover.media.archive import check_chain, iter_blocks, last_block
from mover.media.frames import iter_frames, read_frame
from mover.media.header import DataType
from mover.media.inspect import describe, records
from mover.media.layout import parse_path
from mover.media.log_entry import iter_log_entries
from mover.media.macro import iter_macro_index, parse_macro
from mover.media.meta import MetaType, iter_meta_index, iter_meta_records
from mover.media.pg import PGKey

TREE = writer.tree()
PG = PGKey(*writer.PG)


def content(ending: str) -> bytes:
    (found,) = [data for path, data in TREE.items() if path.endswith(ending)]
    return found


@pytest.mark.parametrize("path", TREE)
def test_every_file_of_the_tree_is_known_and_sound(path: str) -> None:
    assert parse_path(f"some/root/{path}") is not None
    # What 3.1.0 writes into an archive_key is not known, so mover's own rules do not apply to it.
    found = describe(path, TREE[path], strict="/archive_key/" not in path)
    assert found["ok"], found
    assert sum(found["records"].values()) >= (0 if path.endswith("sys_pg_list") else 1)


@pytest.mark.parametrize("path", TREE)
def test_what_later_versions_appended_is_read_and_disturbs_nothing(path: str) -> None:
    later = writer.tree(later=True)[path]
    appended = {"date": 20211225, "backup_piece_id": 3, "start_piece_id": 1}
    rows = [{key: value for key, value in row.items() if appended.get(key) != value} for row in records(path, later)]
    assert rows == list(records(path, TREE[path]))
    if later != TREE[path]:
        assert any(appended.keys() & row.keys() for row in records(path, later))
    if later != TREE[path]:
        with pytest.raises(FormatError):
            list(records(path, later, strict=True))


def test_macro_blocks_are_found_through_the_index() -> None:
    data = content("macro_block_2.0")
    index = list(iter_macro_index(iter_frames(content("macro_block_index_2"), data_type=DataType.MACRO_DATA_INDEX)))
    assert len(index) == 2
    for (head, entry), block in zip(index, writer.BLOCKS, strict=True):
        assert entry is not None
        assert head.table_key.pkey == PG
        assert head.table_key.log_ts_range.max_log_ts == -1
        piece = data[entry.offset : entry.offset + entry.data_length]
        macro = parse_macro(read_frame(piece, offset=entry.offset, data_type=DataType.MACRO_DATA).data())
        assert bytes(macro.block) == block
        assert bytes(macro.entry) == writer.META_V2


def test_meta_records_are_found_through_their_index() -> None:
    data = content("meta_file_3")
    (record,) = iter_meta_records(iter_frames(data))
    (entry,) = iter_meta_index(iter_frames(content("meta_index_file_3")))
    assert (record.offset, record.length, record.meta_type) == (entry.offset, entry.data_length, entry.meta_type)
    assert record.meta_type == MetaType.PARTITION_GROUP_META_INFO
    assert record.body == b"partition group meta"


def test_info_files() -> None:
    first, second = info.decode_backup_infos(content("tenant_data_backup_info"))
    assert (first.status, second.status) == (info.BackupStatus.FAILED, info.BackupStatus.SUCCESS)
    assert info.last_success((first, second)) == second
    assert info.encode_backup_infos((first, second)) == content("tenant_data_backup_info")
    rounds = info.decode_archive_rounds(content("tenant_clog_backup_info"))
    assert [r.status for r in rounds] == [info.ArchiveStatus.STOP, info.ArchiveStatus.DOING]
    assert info.encode_archive_rounds(rounds) == content("tenant_clog_backup_info")
    assert info.decode_pg_list(content("normal_pg_list")) == (PG,)
    assert info.decode_tenant_locality(content("tenant_locality_info")).locality == "FULL{1}@z1"
    assert info.decode_tenant_names(content("tenant_name_info")).resolve("app", writer.US) == writer.TENANT


def test_archived_log() -> None:
    data = content(f"data/{writer.TABLE}/0/1")
    blocks = tuple(iter_blocks(data))
    kickoff = blocks[0].kickoff()
    assert kickoff is not None
    assert kickoff.round_start_ts == writer.US
    assert check_chain(blocks, 0xABCD, 20)[1] == 23
    found = last_block(data)
    assert found is not None
    assert found.meta.max_log_id == 22
    entries = [entry.header for entry in iter_log_entries(blocks[1].raw())]
    assert [(e.log_id, e.batch_committed, e.submit_timestamp) for e in entries] == [
        (20, False, writer.US + 20),
        (21, True, writer.US + 21),
        (22, False, writer.US + 22),
    ]
