"""ObFullMacroBlockMetaEntry of OceanBase 3.1: what stands before each macroblock of a 3.1 store in a macro payload.

ObMacroBlockMetaV2 and ObMacroBlockSchemaInfo back to back, packed little-endian without padding. What neither a block
nor the catalog tells stays unknown: those members are listed in ``UNKNOWN`` and have the value that means nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

META_VERSION = 2
SCHEMA_VERSION = 1
UNKNOWN = {
    "end_key": "a row key without columns",
    "schema_rowkey_col_cnt": 0,
    "macro_block_mark_deletion_offset": 0,
    "macro_block_deletion_flag": 0,
    "macro_block_delta_offset": 0,
    "column_checksum_method": 0,
    "progressive_merge_round": 0,
    "contain_uncommitted_row": 0,
    "max_merged_trans_version": 0,
}
_HEAD = struct.Struct("<iihQ")
_BODY = struct.Struct("<hhhhiiqiiii")
_NO_END_KEY = b"\x00"  # ObRowkey with 0 cells
_REST = struct.Struct("<QqqqhiiBiqhqqq16sBq")


@dataclass(frozen=True, slots=True)
class MacroMeta:
    """The known members of a block's meta and schema."""

    attr: int
    data_version: int
    rowkey_column_count: int
    column_index_scale: int
    row_store_type: int
    row_count: int
    occupy_size: int
    data_checksum: int
    micro_block_count: int
    micro_block_data_offset: int
    micro_block_index_offset: int
    micro_block_endkey_offset: int
    table_id: int
    partition_id: int
    data_seq: int
    schema_version: int
    snapshot_version: int
    row_count_delta: int
    encrypt_id: int
    master_key_id: int
    encrypt_key: bytes
    compressor: str
    column_ids: tuple[int, ...]
    column_types: bytes  # ObObjMeta, 4 bytes each
    column_orders: bytes  # ObOrderType, 4 bytes each
    column_checksums: tuple[int, ...]

    def pack(self) -> bytes:
        """The whole entry. Raises ValueError when a member does not fit."""
        columns = len(self.column_ids)
        try:
            body = _BODY.pack(
                columns,
                self.rowkey_column_count,
                self.column_index_scale,
                self.row_store_type,
                self.row_count,
                self.occupy_size,
                self.data_checksum,
                self.micro_block_count,
                self.micro_block_data_offset,
                self.micro_block_index_offset,
                self.micro_block_endkey_offset,
            )
            body += struct.pack(f"<{columns}q", *self.column_checksums) + _NO_END_KEY
            body += _REST.pack(
                self.table_id,
                self.data_seq,
                self.schema_version,
                self.snapshot_version,
                0,
                self.row_count_delta,
                0,
                0,
                0,
                self.partition_id,
                0,
                0,
                self.encrypt_id,
                self.master_key_id,
                self.encrypt_key,
                0,
                0,
            )
            meta = _HEAD.pack(_HEAD.size + len(body), META_VERSION, self.attr, self.data_version) + body
            schema = struct.pack("<hhqh", columns, self.rowkey_column_count, self.schema_version, 0)
            schema += self.compressor.encode() + b"\x00" + struct.pack(f"<{columns}H", *self.column_ids)
            schema += self.column_types + self.column_orders
            return meta + struct.pack("<ii", 8 + len(schema), SCHEMA_VERSION) + schema
        except struct.error as error:
            raise ValueError(f"macro meta of table {self.table_id}: {error}") from error
