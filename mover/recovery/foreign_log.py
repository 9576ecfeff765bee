"""The archived log of a foreign tree, PG by PG: every block, every entry, the chain, and the index records beside it.

Files are streamed; memory is one block and one piece per PG under way. The rules are those of OceanBase's readers:
file ids count from 1, at most the newest file has no index record, a torn tail is the end of its file when the next one
goes on without a gap, and an index record is written only when its data file is whole.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from mover.errors import IntegrityError, TargetNotFound
from mover.media.archive import ArchiveBlock
from mover.media.archive_index import (
    INDEX_RECORD_SIZE,
    ArchiveIndexRecord,
    ArchiveKey,
    read_archive_key,
    scan_index_file,
)
from mover.media.block_stream import BadRun, BlockStream
from mover.media.log_chain import BlockFacts, Position, walk_block
from mover.recovery.findings import Damage, Findings, LogReach, Read, Span
from mover.recovery.foreign_tree import PgLog, PieceDir, TreeFile, in_order
from mover.target.base import Target

FIRST_FILE = 1


@dataclass(slots=True)
class IndexRecords:
    """The index records of a PG in one directory, by data file, and the file each is in."""

    records: dict[int, tuple[ArchiveIndexRecord, str]]
    findings: Findings


async def read_index(target: Target, log: PgLog, read: Read) -> IndexRecords:
    """Every index record of a PG. Damage is collected."""
    found = IndexRecords({}, Findings())
    last = max(log.index, default=0)
    for number, until, there in in_order(log.index, FIRST_FILE):
        if not there:
            path = f"{log.index_directory}/{number}"
            text = f"{path} {'' if until == number else f'and all to {until} '}is missing, {last} is there"
            found.findings.damages.append(Damage(path, 0, "TargetNotFound", text))
            continue
        path = log.index[number].path
        try:
            data = await target.get(path)
        except TargetNotFound as exc:
            found.findings.damages.append(Damage.of(exc, path))
            continue
        read(path, len(data))
        scanned = scan_index_file(data)
        for record in scanned.records:
            found.records[record.data_file_id] = (record, path)
        if scanned.bad_offset is not None:
            torn = number == last and len(data) - scanned.bad_offset < INDEX_RECORD_SIZE
            list_ = found.findings.notes if torn else found.findings.damages
            reason = "torn tail of an index file" if torn else str(scanned.reason)
            list_.append(Damage(path, scanned.bad_offset, "FormatError", reason))
    return found


def key_position(data: bytes) -> Position | None:
    """Where the piece before ended, by the ``archive_key`` of a later one; None for a first piece and for 3.1.0's."""
    key = read_archive_key(data)
    return _behind(key) if isinstance(key, ArchiveKey) and not key.is_first_piece else None


def _behind(key: ArchiveKey) -> Position:
    end = key.index
    return Position(end.max_log_id, end.accum_checksum, end.max_log_submit_ts, end.max_checkpoint_ts, end.clog_epoch_id)


@dataclass(slots=True)
class _FileWalk:
    """What was seen of one data file."""

    file: TreeFile
    record: ArchiveIndexRecord | None
    newest: bool
    last: Position | None = None
    min_log_id: int | None = None
    first_seen: int | None = None
    clean: bool = True


class PgWalk:
    """One PG through all directories of a round that are there.

    Args:
        target: where they are.
        tenant_id: for findings.
        pieces: of the round, ascending; the PG need not be in each.
        pg: which.
        read: told of each file that was read.
    """

    def __init__(
        self, target: Target, tenant_id: int, pieces: list[PieceDir], pg: tuple[int, int], *, read: Read
    ) -> None:
        self._target = target
        self._where = {"tenant_id": tenant_id, "pg": f"{pg[0]}/{pg[1]}", "round": pieces[0].round_id}
        self._pieces = [piece for piece in pieces if pg in piece.pgs]
        self._pg = pg
        self._read = read
        self.findings = Findings()
        self._spans: list[Span] = []
        self._open: Span | None = None
        self._at: Position | None = None
        self._lost: Damage | None = None  # log that is missing, until it is known where it goes on
        self._torn_at = ""
        self._begun = False  # something of the chain was seen

    async def run(self) -> LogReach:
        """Check everything; damage goes to :attr:`findings`."""
        before: PgLog | None = None
        for piece in self._pieces:
            log = piece.pgs[self._pg]
            index = await read_index(self._target, log, self._read)
            self.findings.damages += [self._placed(d) for d in index.findings.damages]
            self.findings.notes += [self._placed(d) for d in index.findings.notes]
            await self._key(log, piece, before)
            await self._files(log, index.records)
            before = log
        if self._lost is not None:
            self._settle(None)
        self._close("")
        return LogReach(self._pg[0], self._pg[1], tuple(self._spans))

    # --- archive_key ------------------------------------------------------------------------------------------------

    async def _key(self, log: PgLog, piece: PieceDir, before: PgLog | None) -> None:
        if log.key is None:
            if log.data:
                path = f"{piece.path}/archive_key/{self._pg[0]}_{self._pg[1]}"
                self._damage(path, 0, "TargetNotFound", f"{path} is missing, but log that is written after it is there")
            return
        try:
            data = await self._target.get(log.key.path)
            self._read(log.key.path, len(data))
            key = read_archive_key(data)
        except (IntegrityError, TargetNotFound) as exc:
            self.findings.damages.append(Damage.of(exc, log.key.path, **self._where))
            return
        if not isinstance(key, ArchiveKey) or key.is_first_piece:
            return
        files = max(before.index, default=0) if before is not None else key.max_index_file_id
        if key.max_index_file_id != files:
            text = f"it says {key.max_index_file_id} index files in the piece before, there are {files}"
            self._damage(log.key.path, 0, "IntegrityError", text)
        behind = _behind(key)
        if self._at is None and self._lost is None:
            # The pieces before were deleted, as they are when no set needs them: the key says where this one goes on.
            self._at = behind
            self._begun = True
        elif self._lost is None and self._at is not None and behind.log_id != self._at.log_id:
            self._lose(
                log.key.path,
                0,
                f"the piece before ended with log {behind.log_id}, what is there of it with {self._at.log_id}",
            )
            self._at = None
        elif self._at is not None and behind.accum != self._at.accum:
            self._damage(
                log.key.path,
                0,
                "IntegrityError",
                f"running checksum {behind.accum:#x} at the end of the piece before, found {self._at.accum:#x}",
            )

    # --- data files -------------------------------------------------------------------------------------------------

    async def _files(self, log: PgLog, records: dict[int, tuple[ArchiveIndexRecord, str]]) -> None:
        valid = {number for number, (record, _) in records.items() if record.is_valid}
        last = max([*log.data, *valid], default=0)
        unrecorded = sorted(number for number in log.data if number not in records)
        for number in unrecorded[:-1] if unrecorded and unrecorded[-1] == last else unrecorded:
            path = log.index[max(log.index)].path if log.index else f"{log.index_directory}/{FIRST_FILE}"
            text = f"data file {number} has no index record, and it is not the newest"
            self._damage(path, 0, "IntegrityError", f"{text}: {log.data[number].path}")
        for number, until, _ in in_order({*log.data, *records}, FIRST_FILE):
            record, index_path = records.get(number, (None, ""))
            if record is not None and not record.is_valid:
                if number in log.data:
                    self._read(log.data[number].path, log.data[number].size)
                continue
            if number in log.data:
                await self._file(log.data[number], number, record, index_path, newest=number == last)
                continue
            missing = f"{log.directory}/{number}"
            more = f" to {until}" if until != number else ""
            named = f", {index_path} names it" if index_path else ""
            self._lose(missing, 0, f"data file {number}{more} is missing{named}", kind="TargetNotFound")
            if record is not None and self._lost is not None:
                self._lost.where["until_log_id"] = record.max_log_id
            self._at = None

    async def _file(
        self, file: TreeFile, number: int, record: ArchiveIndexRecord | None, index_path: str, *, newest: bool
    ) -> None:
        walk = _FileWalk(file, record, newest)
        stream = BlockStream(file.size)
        try:
            async for piece in self._target.stream(file.path, 0, file.size):
                await asyncio.to_thread(self._take, walk, stream, piece)
            await asyncio.to_thread(self._take, walk, stream, None)
        except TargetNotFound as exc:
            self._lose(file.path, 0, exc.message, kind=exc.kind)
            self._at = None
            return
        self._read(file.path, file.size)
        if record is not None and walk.clean and walk.last is not None:
            self._compare(record, walk.last, index_path, number)
        elif record is not None and walk.last is None and walk.clean:
            self._lose(file.path, 0, f"no block is in it, its index record says log {record.max_log_id}")
            self._lost_to(record.max_log_id)
            self._at = None

    def _take(self, walk: _FileWalk, stream: BlockStream, piece: bytes | None) -> None:
        """The next bytes of a data file, None at its end; in a thread, one call at a time."""
        if piece is None:
            torn = stream.finish()
            if torn is not None:
                self._torn(walk, torn)
            return
        for item in stream.feed(piece):
            if isinstance(item, BadRun):
                walk.clean = False
                self._lose(walk.file.path, item.offset, item.reason)
                self._at = None
            else:
                self._block(walk, item)

    def _block(self, walk: _FileWalk, block: ArchiveBlock) -> None:
        facts = self._walked(walk.file.path, block)
        if facts is None:
            walk.clean = False
            return
        walk.last = facts.end
        for text in facts.notes:
            self.findings.notes.append(self._placed(Damage(walk.file.path, block.offset, "NopTimestamp", text)))
        if facts.first_log_id is None:
            return
        low = block.meta.min_log_id_in_file
        if walk.first_seen is None and walk.clean:
            walk.first_seen = facts.first_log_id
            if low != facts.first_log_id:
                text = f"a block says that its file begins with log {low}, it does with {facts.first_log_id}"
                self._damage(walk.file.path, block.offset, "IntegrityError", text)
        elif walk.min_log_id not in (None, low):
            text = f"the first log of the file is {low} here and {walk.min_log_id} in the block before"
            self._damage(walk.file.path, block.offset, "IntegrityError", text)
        walk.min_log_id = low

    def _walked(self, path: str, block: ArchiveBlock) -> BlockFacts | None:
        """The block's facts; None when it is damaged."""
        try:
            facts = walk_block(block, self._at, table_id=self._pg[0])
        except IntegrityError as exc:
            alone = self._alone(block)
            self._lose(path, int(exc.where.get("offset") or block.offset), exc.message)
            if alone is None:
                self._lost_to(block.meta.max_log_id)
                self._at = None
                return None
            facts = alone
        if self._lost is not None:
            self._settle(facts)
        elif not self._begun and facts.kickoff is None:
            self._lose(path, block.offset, "the round of this PG does not begin with a kickoff block")
            self._settle(facts)
        self._begun = True
        self._go_on(facts)
        return facts

    def _alone(self, block: ArchiveBlock) -> BlockFacts | None:
        """A block that does not continue what is before it: does it hold by itself? Then log between is missing."""
        if self._at is None:
            return None
        try:
            return walk_block(block, None, table_id=self._pg[0])
        except IntegrityError:
            return None

    def _torn(self, walk: _FileWalk, torn: BadRun) -> None:
        """A file that ends inside a block: damage only when an index record promised what is missing."""
        path, record = walk.file.path, walk.record
        reached = self._at.log_id if self._at is not None else 0
        promised = record is not None and reached < record.max_log_id
        if promised or not torn.cut:
            walk.clean = False
            besides = f"; its index record says log {record.max_log_id}" if record is not None and promised else ""
            self._lose(path, torn.offset, torn.reason + besides)
            if record is not None:
                self._lost_to(record.max_log_id)
            self._at = None
            return
        text = f"torn tail: {torn.reason}"
        self.findings.notes.append(self._placed(Damage(path, torn.offset, "TornTail", text)))
        if walk.newest and record is None:
            self._torn_at = f"torn tail of {path} at offset {torn.offset}"

    def _compare(self, record: ArchiveIndexRecord, last: Position, path: str, number: int) -> None:
        pairs = {
            "max log id": (record.max_log_id, last.log_id),
            "running checksum": (record.accum_checksum, last.accum),
            "submit time": (record.max_log_submit_ts, last.submit_ts),
            "checkpoint": (record.max_checkpoint_ts, last.checkpoint_ts),
            "epoch": (record.clog_epoch_id, last.epoch_id),
        }
        wrong = [f"{name} {said} for {found}" for name, (said, found) in pairs.items() if said != found]
        if wrong:
            self._damage(path, 0, "IntegrityError", f"the record of data file {number} says {', '.join(wrong)}")

    # --- the chain --------------------------------------------------------------------------------------------------

    def _go_on(self, facts: BlockFacts) -> None:
        end = facts.end
        self._at = end
        self._torn_at = ""
        if self._open is None:
            first = facts.first_log_id if facts.first_log_id is not None else end.log_id + 1
            self._open = Span(first, end.log_id, end.submit_ts, end.checkpoint_ts, begins_round=not self._spans)
        else:
            self._open = replace(self._open, until_log_id=end.log_id, until_ts=end.checkpoint_ts)

    def _lose(self, path: str, offset: int, message: str, *, kind: str = "IntegrityError") -> None:
        """Log is missing from here on; where it goes on is said when it is known."""
        after = self._at.log_id + 1 if self._at is not None else None
        if self._lost is not None:
            # One hole, several reasons: each is named, and the range belongs to the last of them.
            self.findings.damages.append(self._placed(self._lost))
            after = self._lost.where.get("from_log_id") if after is None else after
        self._close(f"{message} ({path}, offset {offset})")
        self._lost = Damage(path, offset, kind, message, {} if after is None else {"from_log_id": after})

    def _lost_to(self, log_id: int) -> None:
        if self._lost is not None:
            self._lost.where["until_log_id"] = max(log_id, int(self._lost.where.get("until_log_id") or 0))

    def _settle(self, facts: BlockFacts | None) -> None:
        """The hole ends before this block, or never."""
        lost, self._lost = self._lost, None
        if lost is None:
            return
        if facts is not None:
            first = facts.first_log_id if facts.first_log_id is not None else facts.end.log_id + 1
            lost.where["until_log_id"] = first - 1
        low, high = lost.where.get("from_log_id"), lost.where.get("until_log_id")
        text = lost.message
        if low is not None and high is not None and high >= low:
            text = f"{text} (log {low} to {high} is lost)"
        elif low is not None and high is None:
            text = f"{text} (log from {low} on is lost)"
        self.findings.damages.append(self._placed(replace(lost, message=text)))

    def _close(self, reason: str) -> None:
        """The open run ends, because of damage (``reason``) or because there is no more log."""
        if self._open is not None:
            self._spans.append(replace(self._open, ended_by=reason or self._torn_at))
            self._open = None
        elif reason and not self._spans:
            # What follows does not begin the round: an empty run stands for what is lost.
            self._spans.append(Span(0, -1, 0, 0, begins_round=True, ended_by=reason))

    def _damage(self, path: str, offset: int, kind: str, message: str) -> None:
        self.findings.damages.append(self._placed(Damage(path, offset, kind, message)))

    def _placed(self, found: Damage) -> Damage:
        return replace(found, where={**found.where, **self._where})
