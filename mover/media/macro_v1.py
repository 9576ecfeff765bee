"""Macro indexes of every generation: ObBackupMacroIndex of 2.2.6x, and the groups of 3.1.0 and later.

2.2.6x wrote one self-contained entry per block and no group heads. Both files have the same name and header; how many
members the first record has tells which it is.
"""

from __future__ import annotations

from mover.errors import FormatError
from mover.media.frames import Frame
from mover.media.macro import MacroIndex, MacroIndexDecoder, TableKey, TableKeyInfo
from mover.media.pg import PGKey
from mover.media.serial import Reader

_MEMBERS = 10  # of an entry of 2.2.6x: all varints
UNKNOWN_COUNT = -1  # total_macro_block_count of a group of 2.2.6x: it does not say

Rows = list[tuple[TableKeyInfo, MacroIndex | None]]


class MacroIndexDecoderV1:
    """Entries of 2.2.6x as those of 3.1.0, with a head made for each run of one index table.

    ``feed`` as of :class:`MacroIndexDecoder`. Within a run the blocks count from 0.
    """

    __slots__ = ("_head", "_next", "strict")

    def __init__(self, *, strict: bool = True) -> None:
        self.strict = strict
        self._head: TableKeyInfo | None = None
        self._next = 0

    def feed(self, source: Frame) -> Rows:
        """The records of one frame. Raises FormatError."""
        reader = Reader(source.data(), base_offset=source.payload_offset, strict=self.strict)
        rows: Rows = []
        while reader.remaining:
            start = reader.offset
            outer = reader.enter(1, "macro index")
            table_id = reader.u64("macro index")
            partition_id = reader.i64("macro index")
            index_table_id = reader.u64("macro index")
            entry = MacroIndex(*reader.i64s(_MEMBERS - 3, "macro index"))
            reader.leave(outer, "macro index")
            if min(entry.backup_set_id, entry.sub_task_id, entry.offset, entry.data_length) < 0:
                raise reader.fail("a set, a file, an offset and a length of at least 0", at=start)
            known = self._head is not None and self._head.table_key.table_id == index_table_id
            if self._head is None or not known or entry.sstable_macro_index == 0:
                key = TableKey(0, PGKey(table_id, partition_id), index_table_id)
                self._head, self._next = TableKeyInfo(key, UNKNOWN_COUNT), 0
            if entry.sstable_macro_index != self._next:
                raise reader.fail(
                    f"block {self._next} of index table {index_table_id}, found {entry.sstable_macro_index}", at=start
                )
            self._next += 1
            rows.append((self._head, entry))
        return rows

    def finish(self) -> None:
        """The last file is over: nothing can be missing that an entry would tell."""


class AnyMacroIndexDecoder:
    """Reads the index files of one backup in one directory, whichever generation wrote them."""

    __slots__ = ("_inner", "strict")

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self._inner: MacroIndexDecoder | MacroIndexDecoderV1 | None = None

    def feed(self, source: Frame) -> Rows:
        """The records of one frame. Raises FormatError."""
        if self._inner is None:
            kind = MacroIndexDecoderV1 if _is_v1(source) else MacroIndexDecoder
            self._inner = kind(strict=self.strict)
        return self._inner.feed(source)

    def finish(self) -> None:
        """The last file is over. Raises FormatError when its last group is short."""
        if self._inner is not None:
            self._inner.finish()


def _is_v1(source: Frame) -> bool:
    reader = Reader(source.data(), strict=False)
    try:
        reader.enter(1, "a record")
        for _ in range(_MEMBERS):
            reader.varint()
    except FormatError:
        return False
    return not reader.remaining
