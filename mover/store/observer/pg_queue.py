"""The logs of one PG on their way from a server's clog to the archive: proposals in, confirmed logs out. No I/O.

A clog holds what was proposed, perhaps several times under one log id and perhaps never confirmed. What comes out is
confirmed, has every log id once, in order, and continues the running checksum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mover.errors import IntegrityError, LogGapError
from mover.kernel.clog import SUBMIT_AT
from mover.media.log_entry import next_accum
from mover.media.pg import PGKey
from mover.store.cluster import LogRun
from mover.store.observer.ilog import Ilog, IlogCursor

RUN_BYTES = 1_900_000  # with nothing around it a run fits one archive block
_BATCH_BIT = 0x80


class Proposal(NamedTuple):
    """One entry of the clog."""

    proposal_ts: int
    file_id: int
    offset: int  # of the item in the clog
    submit_ts: int
    data_checksum: int
    epoch: int
    buffer: bytes  # entries of the PG, back to back
    start: int
    size: int


@dataclass(slots=True)
class PGQueue:
    """See the module.

    Args:
        pg: whose logs these are.
        next_log_id: the first log that is wanted.
        accum: running checksum before it.
    """

    pg: PGKey
    next_log_id: int
    accum: int
    confirmed: int = 0  # by the catalog
    service_ts: int = 0
    waiting: dict[int, list[Proposal]] | None = None
    held: int = 0  # bytes that wait

    def add(self, log_id: int, proposal: Proposal) -> None:
        """Take an entry that was read, in the order of the clog."""
        if log_id < self.next_log_id:
            return
        if self.waiting is None:
            self.waiting = {}
        self.waiting.setdefault(log_id, []).append(proposal)
        self.held += proposal.size

    def last_confirmed(self, ilog: Ilog) -> int:
        """The greatest log id that is known to be confirmed."""
        return max(self.confirmed, ilog.last(self.pg))

    def take(self, ilog: Ilog, *, at_end: bool, first_file: int) -> list[LogRun]:
        """The confirmed logs that are due.

        Args:
            at_end: everything that was in the clog when ``confirmed`` was asked for has been added.
            first_file: the oldest clog file there is.

        Raises:
            LogGapError: the next log was in a clog file that is gone.
            IntegrityError: the running checksum does not hold.
        """
        runs: list[LogRun] = []
        pieces: list[bytes | memoryview] = []
        taken: list[Proposal] = []
        size = 0
        first = self.next_log_id
        waiting = self.waiting or {}
        while True:
            cursor = ilog.cursor(self.pg, self.next_log_id)
            chosen = self._choose(waiting.get(self.next_log_id, ()), cursor, at_end, first_file)
            if chosen is None or size + chosen.size > RUN_BYTES:
                if taken:
                    runs.append(self._run(first, pieces, taken))
                    first, pieces, taken, size = self.next_log_id, [], [], 0
                if chosen is None:
                    return runs
            self.held -= sum(proposal.size for proposal in waiting.pop(self.next_log_id))
            accum = next_accum(self.accum, chosen.data_checksum)
            if cursor is not None and accum != cursor.accum:
                raise IntegrityError(
                    f"log {self.next_log_id} of PG {self.pg}: running checksum {accum:#x}, the server's is"
                    f" {cursor.accum:#x}",
                    hint="a log before it is not the one the server confirmed: stop the round and begin a new one",
                    pg=str(self.pg),
                    log_id=self.next_log_id,
                )
            self.accum = accum
            pieces.append(_entry(chosen, batch=cursor is not None and cursor.batch_committed))
            taken.append(chosen)
            size += chosen.size
            self.next_log_id += 1

    def _choose(
        self, proposals: list[Proposal] | tuple[()], cursor: IlogCursor | None, at_end: bool, first_file: int
    ) -> Proposal | None:
        if cursor is not None:
            # The index names the very entry, so nothing that may still come can be better.
            for proposal in proposals:
                if (proposal.file_id, proposal.offset) == (cursor.file_id, cursor.offset):
                    return proposal
            if cursor.file_id < first_file:
                raise LogGapError(
                    f"log {self.next_log_id} of PG {self.pg} was in clog file {cursor.file_id}, the oldest there is now"
                    f" is {first_file}",
                    hint="the archive has a hole there: begin a new round, then take a new full backup",
                    pg=str(self.pg),
                    log_id=self.next_log_id,
                )
            return None
        if self.next_log_id > self.confirmed or not at_end or not proposals:
            return None
        return max(proposals, key=lambda proposal: (proposal.proposal_ts, proposal.file_id, proposal.offset))

    def _run(self, first: int, pieces: list[bytes | memoryview], taken: list[Proposal]) -> LogRun:
        last = taken[-1]
        return LogRun(
            pg=self.pg,
            payload=b"".join(pieces),
            first_log_id=first,
            last_log_id=self.next_log_id - 1,
            first_submit_ts=taken[0].submit_ts,
            last_submit_ts=last.submit_ts,
            accum=self.accum,
            epoch=last.epoch,
        )


def _entry(proposal: Proposal, *, batch: bool) -> bytes | memoryview:
    entry = memoryview(proposal.buffer)[proposal.start : proposal.start + proposal.size]
    if not batch:
        return entry
    # As the archiver of an observer stores it; the header's checksum is without the bit.
    marked = bytearray(entry)
    marked[SUBMIT_AT] |= _BATCH_BIT
    return bytes(marked)
