"""The archive index of one PG: a record for each data file that is closed, in files of 64 KiB."""

from __future__ import annotations

from collections.abc import Callable

from mover.errors import TargetExists
from mover.media.archive_index import INDEX_FILE_LIMIT, INDEX_RECORD_SIZE, ArchiveIndexRecord
from mover.media.pg import PGKey
from mover.repository.tree import Repository


class IndexWriter:
    """Appends index records of one PG in one round.

    Args:
        index: (file id, bytes of whole records in it, its size) of the index file to go on with; zeros for none.
        last_record: the newest index record, if there is one.
        fence: called before everything that is published; raises when we may not write any more.
    """

    def __init__(
        self,
        repository: Repository,
        round_id: int,
        pg: PGKey,
        *,
        index: tuple[int, int, int],
        last_record: ArchiveIndexRecord | None,
        fence: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._target = repository.target
        self._round = round_id
        self._pg = pg
        self._fence = fence
        self._id, self._size, self._bytes = index
        self._content = b""  # of the open index file, once it was read or written
        self.last_record = last_record

    async def write(self, record: ArchiveIndexRecord) -> None:
        """Append an index record; its data file is closed and durable.

        Raises TargetExists when another archiver wrote to the index.
        """
        self._fence()
        data = record.pack()
        begins = self._id == 0 or self._size + INDEX_RECORD_SIZE > INDEX_FILE_LIMIT
        if begins:
            self._id, self._size, self._content = self._id + 1, 0, b""
        layout = self._repository.layout
        path = layout.archive_index(self._repository.tenant_id, self._round, self._pg, self._id)
        if begins:
            await self._target.put(path, data, if_absent=True)
        else:
            await self._require_unchanged(path)
            if self._target.capabilities.append:
                await self._target.append(path, self._size, data)
            else:
                # Extended, never changed: what was there stays its prefix.
                if len(self._content) != self._size:
                    self._content = await self._target.get(path, 0, self._size)
                await self._target.put(path, self._content + data)
        self._content = self._content[: self._size] + data
        self._size += len(data)
        self._bytes = self._size
        self.last_record = record

    async def _require_unchanged(self, path: str) -> None:
        """Extending an index file replaces what is behind our end: that must not be another archiver's record.

        Leases of different catalogs do not know each other, so the destination is asked.
        """
        found = await self._target.stat(path)
        if found is None or found.size != self._bytes:
            size = "gone" if found is None else f"of {found.size} bytes"
            raise TargetExists(f"{path}: the index file is {size}, it was of {self._bytes}", path=path)
