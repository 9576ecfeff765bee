"""An archive round of one PG at the destination: where its log ends, and reading the log back.

Data files are numbered; every closed one has an index record, at most the newest has none. Each holds blocks of log
entries, each entry one PALF group with its LSN. A file may end in a torn tail (its writer died); the next file then
goes on at the LSN where the good blocks end. Whether it does is checked, so damage is never taken for a torn tail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from mover.errors import IntegrityError, LogGapError
from mover.media.archive import TornTail, parse_block_meta
from mover.media.archive_index import INDEX_RECORD_SIZE, ArchiveIndexRecord, scan_index_file
from mover.media.layout import FileKind
from mover.media.pg import PGKey
from mover.repository.archive_state import load_record
from mover.repository.file_memory import FileMemory
from mover.repository.log_file import DataFileSummary, LogRun, check_run, summarize
from mover.repository.tree import READS, Repository, name_file, read_again
from mover.store.base import LogCursor
from mover.target.base import Buffer, ObjectInfo

_HEAD = 8 << 10  # enough for the meta and the first entry of an uncompressed block


@dataclass(frozen=True, slots=True)
class RoundTail:
    """Where an archiver goes on: from what the destination holds, not from what it remembers."""

    cursor: LogCursor | None  # None: nothing but the kickoff is archived
    accum: int  # the archive's running checksum there
    epoch: int  # the highest epoch that wrote
    last_file_id: int
    unrecorded: DataFileSummary | None  # the data file without an index record
    index_file_id: int  # the index file to append to, 0 = none yet
    index_size: int  # bytes of whole records in it
    index_bytes: int  # its size: larger when its writer died in the last record
    newest_record: ArchiveIndexRecord | None
    records: int


class RoundReader:
    """Reads the log of ``pg`` that ``round_id`` archived."""

    def __init__(self, repository: Repository, round_id: int, pg: PGKey) -> None:
        self._repository = repository
        self._round = round_id
        self._pg = pg
        layout, tenant = repository.layout, repository.tenant_id
        self.verified: set[str] = set()
        """Paths of the data files that :meth:`log` verified from the first byte to the last."""
        self._data_dir = layout.archive_data_dir(tenant, round_id, pg)
        self._index_dir = layout.archive_index_dir(tenant, round_id, pg)

    async def data_files(self) -> list[tuple[int, int]]:
        """(file id, size) of every data file, ascending."""
        return [(number, info.size) for number, info in await self._repository.numbered(self._data_dir)]

    async def index_records(self) -> tuple[dict[int, ArchiveIndexRecord], int, int]:
        """Records by data file id, the newest index file's id, and how many bytes of it are whole records.

        Raises IntegrityError for a bad record that is not the torn end of the newest index file.
        """
        records: dict[int, ArchiveIndexRecord] = {}
        newest, whole = 0, 0
        files = await self._repository.numbered(self._index_dir)
        for number, info in files:
            found, whole = await self._index_file(info, newest=number == files[-1][0])
            records |= {record.data_file_id: record for record in found}
            newest = number
        return records, newest, whole

    async def _index_file(self, info: ObjectInfo, *, newest: bool) -> tuple[tuple[ArchiveIndexRecord, ...], int]:
        """The records of one index file, and how many bytes of it they are."""

        async def once() -> tuple[tuple[ArchiveIndexRecord, ...], int]:
            data = await self._repository.target.get(info.path)
            scanned = scan_index_file(data)
            rest = data[scanned.bad_offset :] if scanned.bad_offset is not None else b""
            # A writer that died leaves a short record, or after a power cut one whose bytes never came.
            torn = newest and (len(rest) < INDEX_RECORD_SIZE or not any(rest))
            if rest and not torn:
                raise IntegrityError(
                    f"{info.path}: {scanned.reason}", path=info.path, offset=scanned.bad_offset, pg=str(self._pg)
                )
            return tuple(scanned.records), len(data) if scanned.bad_offset is None else scanned.bad_offset

        return await read_again(once)

    async def load(self, file_id: int, accum: int | None, memory: FileMemory | None = None) -> DataFileSummary:
        """Read one data file and verify all that can be verified without its neighbours.

        Args:
            accum: the running checksum before its first entry; None accepts what the first block says.
            memory: where to read it to; free again when this returns.
        """
        path = self._repository.layout.archive_data(self._repository.tenant_id, self._round, self._pg, file_id)
        target = self._repository.target
        found = await target.stat(path) if memory is not None else None

        async def once() -> DataFileSummary:
            data: Buffer
            if found is None or memory is None or not found.size:
                data = await target.get(path)
            else:
                await target.read_into(path, 0, data := memory.room(found.size))
            try:
                return await asyncio.to_thread(summarize, file_id, path, data, accum, self._pg, self._repository.keys)
            except IntegrityError as exc:
                raise name_file(exc, path) from None

        summary = await read_again(once)
        for _ in range(READS):
            if summary.torn is None:
                break
            # Its writer may have died; but what looks torn may be whole, and was changed on its way here.
            before, summary = summary, await read_again(once)
            if (summary.torn, summary.size) == (before.torn, before.size):
                break
        return summary

    async def read(self, file_id: int) -> tuple[str, bytes]:
        """Path and bytes of one data file, unverified."""
        path = self._repository.layout.archive_data(self._repository.tenant_id, self._round, self._pg, file_id)
        return path, await self._repository.target.get(path)

    async def tail(self) -> RoundTail:
        """The end of the archived log. Raises IntegrityError when the newest files contradict each other."""
        records, index_file, index_size = await self.index_records()
        files = await self.data_files()
        last = files[-1][0] if files else 0
        recorded = max(records, default=0)
        if recorded > last:
            raise self._lost_file(recorded)
        if last > recorded + 1:
            raise IntegrityError(
                f"{self._data_dir}/{recorded + 2}: data files {recorded + 1} to {last} have no index record",
                path=f"{self._data_dir}/{recorded + 2}",
                hint="at most the newest data file may lack one: index files were lost, or two archivers wrote",
            )
        newest = await self.load(last, None) if last > recorded else None
        cursor = newest.runs[-1].cursor if newest and newest.runs else None
        accum = newest.accum if newest and newest.accum is not None else 0
        file_id = recorded
        while cursor is None and file_id > 0:
            # Files whose writer died before the first block hold nothing; the one before them decides.
            if file_id not in records:
                raise IntegrityError(
                    f"{self._data_dir}/{file_id}: this data file has no index record, but later ones have",
                    path=f"{self._data_dir}/{file_id}",
                    hint="index files were lost at the destination; stop the round and begin a new one",
                )
            if records[file_id].is_valid:
                older = await self.load(file_id, None)
                if not older.runs:
                    raise IntegrityError(
                        f"{older.path}: the index record says that this data file has log, but it has none",
                        path=older.path,
                    )
                cursor, accum = older.runs[-1].cursor, older.accum or 0
            file_id -= 1
        path = self._repository.layout.archive_index(self._repository.tenant_id, self._round, self._pg, index_file)
        index = await self._repository.target.stat(path) if index_file else None
        epochs = [record.clog_epoch_id for record in records.values()]
        return RoundTail(
            cursor=cursor,
            accum=accum,
            epoch=max([*epochs, newest.epoch if newest else 0], default=0),
            last_file_id=last,
            unrecorded=newest,
            index_file_id=index_file,
            index_size=index_size,
            index_bytes=index.size if index else 0,
            newest_record=records[recorded] if records else None,
            records=len(records),
        )

    def _lost_file(self, file_id: int) -> IntegrityError:
        path = f"{self._data_dir}/{file_id}"
        return IntegrityError(
            f"{path}: this data file has an index record, but it is not there",
            path=path,
            hint="archived log was removed from the destination; `mover show windows` prints what can be restored",
        )

    async def check_files(self) -> None:
        """Data files and index records belong together, and the first file has the round's kickoff.

        Raises IntegrityError naming the first file that is not so. A file of log that lost its end may be the work of
        a writer that died, which the chain tells; the kickoff is written whole, so a torn one is damaged.
        """
        # An archiver may be at work: files are listed on both sides of the records, so that neither looks lost.
        before = [number for number, _ in await self.data_files()]
        # One that signed off has closed every file; the next one signs on before it makes another.
        record = await load_record(self._repository, self._round)
        signed_off = record is not None and not record.holder and record.gap is None and record.checkpoint_scn > 0
        records, index_file, _ = await self.index_records()
        lost = records.keys() - {number for number, _ in await self.data_files()}
        if lost:
            raise self._lost_file(min(lost))
        closed = before if signed_off else before[:-1]
        unrecorded = [number for number in closed if number not in records]
        if unrecorded:
            path = f"{self._index_dir}/{index_file or 1}"
            raise IntegrityError(f"{path}: closed data file {unrecorded[0]} has no index record", path=path)
        first = await self.load(1, None)
        if first.kickoff is None or first.torn is not None:
            reason = first.torn.reason if first.torn is not None else "there is none"
            raise IntegrityError(f"{first.path}: the kickoff of the round is not whole: {reason}", path=first.path)

    async def first_lsn(self, file_id: int) -> int | None:
        """LSN of the first log byte in a data file, None when it has none."""
        path = self._repository.layout.archive_data(self._repository.tenant_id, self._round, self._pg, file_id)
        info = await self._repository.target.stat(path)
        if info is None or info.size < _HEAD:
            summary = await self.load(file_id, None) if info is not None and info.size else None
            return summary.runs[0].lsn if summary and summary.runs else None
        whole = info.size

        async def once() -> DataFileSummary:
            head = await self._repository.target.get(path, 0, _HEAD)
            try:
                size = parse_block_meta(head, offset=0).total_length + 4
                # The kickoff block stands alone in its file, so the first block answers for all others.
                data = await self._repository.target.get(path, 0, min(size, whole))
                return await asyncio.to_thread(summarize, file_id, path, data, None, self._pg, self._repository.keys)
            except IntegrityError as exc:
                raise name_file(exc, path) from None

        summary = await read_again(once)
        if summary.torn is not None:
            summary = await read_again(once)
        return summary.runs[0].lsn if summary.runs else None

    async def find(self, lsn: int, files: list[int]) -> int:
        """The position in ``files`` of the data file that holds ``lsn``: the last one that begins at or before it."""
        low, high = 0, len(files) - 1
        best = 0
        while low <= high:
            middle = (low + high) // 2
            probe, first = middle, None
            while probe <= high and first is None:
                first = await self.first_lsn(files[probe])
                probe += first is None
            if first is None or first > lsn:
                high = middle - 1
            else:
                best, low = probe, probe + 1
        return best

    async def log(self, start_lsn: int, until_lsn: int) -> AsyncGenerator[LogRun]:
        """Every run that touches [start_lsn, until_lsn), contiguous and verified across files.

        Reads one data file ahead: whoever stops early closes it.

        Raises:
            LogGapError: the archive has no log at ``start_lsn`` or does not reach ``until_lsn``.
            IntegrityError: a file is damaged; the message names it.
        """
        files = [number for number, _ in await self.data_files()]
        records, _, _ = await self.index_records()
        position = await self.find(start_lsn, files)
        expected: LogCursor | None = None
        encrypted = False
        torn: tuple[str, TornTail] | None = None
        async with aclosing(self._summaries(files[position:], records, until_lsn)) as summaries:
            async for summary in summaries:
                if encrypted and summary.runs and not summary.key_id:
                    raise IntegrityError(
                        f"{summary.path}: its log is not encrypted, and the log before it is", path=summary.path
                    )
                encrypted = encrypted or bool(summary.key_id)
                self._agree(summary, records.get(summary.file_id))
                for number, run in enumerate(summary.runs):
                    if expected is None and run.lsn > start_lsn:
                        raise self._break(start_lsn, run.lsn, summary.path, torn)
                    if expected is not None and run.lsn != expected.lsn:
                        raise self._break(expected.lsn, run.lsn, summary.path, torn)
                    if expected is not None and number == 0:  # inside a file, runs were held against each other
                        await asyncio.to_thread(check_run, run, expected, summary.path)
                    expected = run.cursor
                    if number == 0 and summary.torn is None:
                        self.verified.add(summary.path)
                    if run.end_lsn > start_lsn and run.lsn < until_lsn:
                        yield run
                    if run.end_lsn >= until_lsn:
                        return
                if summary.torn is not None:
                    torn = (summary.path, summary.torn)
        raise self._break(expected.lsn if expected else start_lsn, until_lsn, self._data_dir, torn)

    async def _summaries(
        self, files: list[int], records: dict[int, ArchiveIndexRecord], until_lsn: int
    ) -> AsyncGenerator[DataFileSummary]:
        """Data files up to the one that reaches ``until_lsn``, each being read while the one before is worked on."""
        memory = FileMemory()
        accum: int | None = None
        ahead: asyncio.Task[DataFileSummary] | None = None
        try:
            for position, file_id in enumerate(files):
                before = records.get(file_id - 1)
                if accum is None and before is not None and before.is_valid:
                    accum = before.accum_checksum or None  # 0: it is encrypted with the log
                summary = await (ahead or self.load(file_id, accum, memory))
                ahead = None
                accum = summary.accum if summary.accum is not None else accum
                more = files[position + 1 : position + 2]
                reached = bool(summary.runs) and summary.runs[-1].end_lsn >= until_lsn
                if more and not reached and accum is not None:
                    ahead = asyncio.create_task(self.load(more[0], accum, memory))
                yield summary
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    def _break(self, from_lsn: int, until_lsn: int, path: str, torn: tuple[str, TornTail] | None) -> Exception:
        if torn is not None:
            return IntegrityError(
                f"{torn[0]}: {torn[1].reason}; log [{from_lsn}, {until_lsn}) is lost with it",
                path=torn[0],
                offset=torn[1].offset,
                from_lsn=from_lsn,
                until_lsn=until_lsn,
                pg=str(self._pg),
            )
        return LogGapError(
            f"{path}: log [{from_lsn}, {until_lsn}) is missing from round {self._round}",
            path=path,
            from_lsn=from_lsn,
            until_lsn=until_lsn,
            pg=str(self._pg),
            hint="`mover show windows` prints what can be restored",
        )

    def _agree(self, summary: DataFileSummary, record: ArchiveIndexRecord | None) -> None:
        """An index record and its data file tell the same story."""
        if record is None:
            return
        if record.is_valid and summary.runs:
            found = (summary.first_log_id, summary.last_log_id, summary.accum)
            accum = summary.accum if summary.key_id else record.accum_checksum
            said = (record.min_log_id, record.max_log_id, accum)
            if found == said:
                return
        elif not record.is_valid and not summary.runs:
            return
        elif record.is_valid and summary.torn is not None:
            raise IntegrityError(
                f"{summary.path}: {summary.torn.reason}", path=summary.path, offset=summary.torn.offset
            )
        raise IntegrityError(
            f"{summary.path}: holds log ids {summary.first_log_id} to {summary.last_log_id}, but its index record says"
            f" {record.min_log_id} to {record.max_log_id}"
            + (f"; {summary.torn.reason}" if summary.torn is not None else ""),
            path=summary.path,
            offset=summary.torn.offset if summary.torn is not None else None,
        )


async def archived_pgs(repository: Repository, round_id: int) -> list[PGKey]:
    """The PGs that have data files in a round, from their paths."""
    found = set()
    async for file in repository.files(repository.layout.round_dir(repository.tenant_id, round_id)):
        parsed = repository.layout.parse(file.path)
        if parsed is not None and parsed.kind is FileKind.ARCHIVE_DATA and parsed.table_id is not None:
            found.add(PGKey(parsed.table_id, parsed.partition_id or 0))
    return sorted(found)
