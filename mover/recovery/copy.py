"""Copy: a verified second copy of a backup tree, mover's own or OceanBase's (backup of backup).

The lists are read first, then the files are named: so every byte that the lists promise is among them. Files go in
ranks, each verified as it streams and proven at the other side; what makes sets and rounds visible is published last. A
set that is damaged at the source is never published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mover.datapath.buffers import BufferPool, PooledBuffer
from mover.errors import (
    Cancelled,
    ConfigError,
    IntegrityError,
    PreconditionError,
    TargetError,
    TargetExists,
    TargetNotFound,
)
from mover.events import Emit, Notice, Phase, Progress, ignore
from mover.kernel import Xxh3_128, xxh3_128
from mover.media.copy_record import Copied
from mover.media.layout import FileKind, parse_path
from mover.media.manifest import ManifestFile
from mover.recovery.copy_check import CopyCheck, whole_part
from mover.recovery.copy_journal import CopyJournal
from mover.recovery.copy_plan import BYTES, LISTS, CopyPlan, Selection, Wanted, complete_sets, decide, select, spoiled
from mover.recovery.copy_publish import Snapshot, expected_files, publish, take_snapshot
from mover.recovery.findings import Damage
from mover.recovery.first_error import each
from mover.recovery.foreign_missing import MissingFiles
from mover.recovery.foreign_tree import scan_tree
from mover.recovery.leftovers import is_leftover
from mover.target.base import ObjectInfo, Target
from mover.target.slots import most_of

_PART = 8 << 20
_SMALL = 4 << 20  # sent in one piece
_LARGEST_PUT = 128 << 20  # a log file that is replaced as a whole is held as a whole; they have 64 MiB
_REPLACING = 2  # of those at a time
_ALIGN = 4096


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """What to copy.

    Args:
        selection: which sets, and whether the archived log.
        skip_damaged: leave out sets that are damaged at the source and publish the others; archived log is then copied
            as it is. Without it nothing is published when something is damaged.
        plan: decide and report; copy nothing.
        memory: ceiling of the buffers, bytes. concurrency: files under way; None for as many as pay.
    """

    selection: Selection = field(default_factory=Selection)
    skip_damaged: bool = False
    plan: bool = False
    memory: int = 256 << 20
    concurrency: int | None = None


@dataclass(slots=True)
class CopyReport:
    """What was done, or would be."""

    plan: CopyPlan
    planned_only: bool
    sets: list[dict[str, int]] = field(default_factory=list)  # published: tenant_id, backup_set_id
    rounds: list[dict[str, int]] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    skipped_sets: list[dict[str, int]] = field(default_factory=list)
    copied_files: int = 0
    copied_bytes: int = 0
    compared_files: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.damages

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "plan": self.planned_only,
            **self.plan.as_json(),
            "copied_files": self.copied_files,
            "copied_bytes": self.copied_bytes,
            "compared_files": self.compared_files,
            "sets": self.sets,
            "rounds": self.rounds,
            "skipped_sets": self.skipped_sets,
            "violations": [
                {"path": d.path, "offset": d.offset, "kind": d.kind, "message": d.message, **d.where}
                for d in self.damages
            ],
            "notes": self.notes,
        }


async def copy(
    source: Target, destination: Target, request: CopyRequest, *, emit: Emit = ignore, stop: asyncio.Event | None = None
) -> CopyReport:
    """Copy as ``request`` says. Run again, it goes on where it was: what is there and proven is not copied again.

    Raises:
        PreconditionError: there is no backup at the source, a selected set is not a complete one, or the destination
            holds other files under the names of the copy.
        IntegrityError: the source is damaged and ``skip_damaged`` is not set: nothing was published; the message names
            the sets.
        Cancelled: ``stop`` was set; what was copied stays and counts next time.
    """
    work = asyncio.ensure_future(_Copy(source, destination, request, emit).run())
    stopping = asyncio.ensure_future(stop.wait() if stop is not None else asyncio.Event().wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Cancelled("the copy was cancelled", hint="run it again: it goes on where it was")
        return work.result()
    finally:
        work.cancel()
        stopping.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)


class _Copy:
    """One run."""

    def __init__(self, source: Target, destination: Target, request: CopyRequest, emit: Emit) -> None:
        self._source = source
        self._destination = destination
        self._request = request
        self._emit = emit
        least = destination.capabilities.min_part
        self._part = max(_PART, -(-least // _ALIGN) * _ALIGN)
        buffers = request.memory // self._part
        if buffers < 2:
            raise ConfigError(
                f"--memory {request.memory} is less than a copy to this destination needs ({2 * self._part} bytes)",
                hint=f"give --memory {2 * self._part >> 20}MiB or more; the default is 256MiB",
            )
        self._pool = BufferPool(buffers, self._part)
        # A file may hold as many buffers as its writer has parts under way, and one that is being filled.
        self._files = max(1, min(most_of(request.concurrency), buffers // 2))
        self._replacing = asyncio.Semaphore(_REPLACING)
        self._journal = CopyJournal(destination, emit)
        self._rows: dict[str, ManifestFile] = {}
        self._reread = destination.capabilities.device_type == "FILE"
        self._done = 0
        self._total = 0
        self._report = CopyReport(CopyPlan(), request.plan)

    async def run(self) -> CopyReport:
        request, report = self._request, self._report
        self._emit(Phase("copy", "plan", self._source.url))
        snapshot = await take_snapshot(self._source)
        self._check_selection(snapshot)
        tree = scan_tree([info async for info in self._source.list("")])
        self._tree = tree
        self._snapshot = snapshot
        report.damages += snapshot.damages
        rows, damages = await expected_files(self._source, snapshot, request.selection, tree)
        self._rows = rows
        report.damages += damages
        for key, tenant in tree.tenants.items():
            if key in snapshot.infos and not tenant.by_mover:
                missing = MissingFiles(self._source, tenant, snapshot.infos[key], concurrency=self._files)
                report.damages += await missing.find(request.selection)
        directories = sorted({key[0] for key in snapshot.infos})
        await self._journal.load(directories)
        there = {info.path: info for directory in directories async for info in self._destination.list(directory + "/")}
        wanted = select(tree, snapshot.infos, request.selection)
        report.plan = plan = decide(wanted, there, self._journal.known)
        if plan.conflicts:
            item = plan.conflicts[0]
            raise self._conflict(item, f"{there[item.path].size} bytes there, {item.file.size} at the source")
        if request.plan:
            self._name_sets()
            return report
        self._total = plan.bytes_to_copy + sum(item.file.size for item in plan.prove)
        try:
            self._emit(Phase("copy", "compare", f"{len(plan.prove)} files"))
            await each(plan.prove, self._files, self._prove)
            for rank in range(BYTES, LISTS + 1):
                self._emit(Phase("copy", "files", f"rank {rank + 1} of {LISTS + 1}"))
                todo = [item for item in plan.copy if item.rank == rank]
                await each(todo, self._files, self._one)
                again = [item for item in plan.replace if item.rank == rank]
                await each(again, self._files, self._again)
        finally:
            await asyncio.shield(self._journal.flush())
        if report.damages and not request.skip_damaged:
            raise self._damaged()
        self._emit(Phase("copy", "publish", self._destination.url))
        self._name_sets()
        await self._drop_old_keys(there)
        await publish(self._destination, snapshot, request.selection, self._bad_sets(), report.notes)
        return report

    async def _drop_old_keys(self, there: Mapping[str, ObjectInfo]) -> None:
        """Key rings that the source replaced: they would go on opening what a change of keys was to close."""
        newest: dict[str, int] = {}
        for file in self._tree.cluster_files.values():
            if file.place.kind is FileKind.KEY_RING:
                base = file.place.incarnation_dir
                newest[base] = max(newest.get(base, 0), file.place.file_id or 0)
        for path in there:
            place = parse_path(path)
            if place is None or place.kind is not FileKind.KEY_RING:
                continue
            if (place.file_id or 0) < newest.get(place.incarnation_dir, 0):
                await self._destination.delete(path)

    # --- what is copied ---------------------------------------------------------------------------------------------

    def _check_selection(self, snapshot: Snapshot) -> None:
        if not snapshot.infos:
            raise PreconditionError(f"there is no backup at {self._source.url}", hint="check the source")
        selection = self._request.selection
        found = {n for infos in snapshot.infos.values() for n in complete_sets(infos.backups, selection)}
        missing = selection.sets - found
        if missing:
            raise PreconditionError(
                f"backup set {min(missing)} is not a complete set of {self._source.url}", hint="`mover show sets`"
            )

    def _bad_sets(self) -> dict[tuple[str, int], set[int]]:
        """The backups of each tenant that are damaged at the source."""
        found: dict[tuple[str, int], set[int]] = {}
        for key, infos in self._snapshot.infos.items():
            base = f"{key[0]}/{key[1]}/"
            damaged = {
                number
                for damage in self._report.damages
                if damage.path.startswith(base)
                for number in damage.where.get("sets", ())
            }
            found[key] = spoiled(infos.backups, damaged)
        return found

    def _name_sets(self) -> None:
        bad = self._bad_sets()
        for key, infos in self._snapshot.infos.items():
            chosen = complete_sets(infos.backups, self._request.selection)
            self._report.sets += [{"tenant_id": key[1], "backup_set_id": n} for n in sorted(chosen - bad[key])]
            self._report.skipped_sets += [{"tenant_id": key[1], "backup_set_id": n} for n in sorted(chosen & bad[key])]
            if self._request.selection.has_log:
                rounds = [info.round_id for info in infos.rounds if not info.is_mark_deleted]
                self._report.rounds += [{"tenant_id": key[1], "round": number} for number in rounds]

    def _damaged(self) -> IntegrityError:
        first = self._report.damages[0]
        names = [
            f"set {number} of tenant {key[1]}"
            for key, numbers in self._bad_sets().items()
            for number in sorted(numbers & complete_sets(self._snapshot.infos[key].backups, self._request.selection))
        ]
        rounds = sorted({d.where["round"] for d in self._report.damages if "round" in d.where})
        names += [f"round {number}" for number in rounds]
        what = f"{', '.join(names)}: " if names else ""
        more = f" (and {len(self._report.damages) - 1} more files)" if len(self._report.damages) > 1 else ""
        return IntegrityError(
            f"the source is damaged, nothing was published; {what}{first.message}{more}",
            hint="`mover validate` on the source tells all; --skip-damaged publishes what is whole",
            path=first.path,
            offset=first.offset,
        )

    # --- one file -----------------------------------------------------------------------------------------------------

    async def _one(self, item: Wanted) -> None:
        """Copy a file that is not there."""
        size = item.file.size
        if item.growing or size <= _SMALL:
            await self._whole(item, replace=False)
            return
        check = CopyCheck(item, self._rows)
        try:
            digest = await self._stream(item, check)
        except (IntegrityError, TargetNotFound) as exc:
            await self._damage(item, exc)
            return
        await self._prove_there(item, size, digest)
        await self._record(item, size, digest)

    async def _again(self, item: Wanted) -> None:
        """Copy a file that has grown since."""
        if item.file.size > _LARGEST_PUT:
            raise self._conflict(item, f"{item.file.size} bytes is no log file that grew")
        async with self._replacing:
            await self._whole(item, replace=True)

    async def _whole(self, item: Wanted, *, replace: bool, keep_damage: bool = False) -> None:
        """Copy a file in one piece, under its name at once."""
        check = CopyCheck(item, self._rows)
        try:
            data = await self._source.get(item.path, 0, item.file.size)
            if item.growing:
                data = await asyncio.to_thread(whole_part, item, data)
            digest = await asyncio.to_thread(_checked, check, data) if not keep_damage else xxh3_128(data).hex()
        except (IntegrityError, TargetNotFound) as exc:
            await self._damage(item, exc)
            return
        try:
            # A destination that locks objects locks what nobody will write again.
            once = not item.growing and not replace and not item.mutable
            await self._destination.put(item.path, data, if_absent=not replace, write_once=once)
        except TargetExists:
            raise self._conflict(item, "somebody else put it there meanwhile") from None
        await self._prove_there(item, len(data), digest)
        if not keep_damage:  # without a record the next run finds the damage again
            await self._record(item, len(data), digest)

    async def _stream(self, item: Wanted, check: CopyCheck) -> str:
        """Copy a large file part by part; its digest."""
        writer = await self._destination.create(item.path, write_once=True)
        try:
            for start in range(0, item.file.size, self._part):
                length = min(self._part, item.file.size - start)
                buffer = await self._filled(item, start, length)
                try:
                    await asyncio.to_thread(check.feed, buffer.data)
                except BaseException:
                    buffer.release()
                    raise
                await writer.write(buffer)
                self._advance(length)
            digest = await asyncio.to_thread(check.finish)
            await writer.commit()
        except TargetExists:
            await writer.abort()
            raise self._conflict(item, "somebody else put it there meanwhile") from None
        except BaseException:
            await writer.abort()
            raise
        return digest

    async def _filled(self, item: Wanted, start: int, length: int) -> PooledBuffer:
        buffer = await self._pool.acquire()
        try:
            await self._source.read_into(item.path, start, buffer.buffer[:length])
        except (TargetError, asyncio.CancelledError):
            buffer.release()
            raise  # of an UnreachableError the answer may still come into the buffer: that is never lent again
        buffer.filled = length
        return buffer

    async def _prove_there(self, item: Wanted, size: int, digest: str) -> None:
        """Object stores confirm what they have; a file is read back."""
        if not self._reread:
            return
        found = Xxh3_128()
        async for piece in self._destination.stream(item.path, 0, size):
            await asyncio.to_thread(found.update, piece)
        if found.digest().hex() != digest:
            await self._destination.delete(item.path)
            raise IntegrityError(
                f"{item.path}: what {self._destination.url} has is not what was written", path=item.path
            )

    async def _prove(self, item: Wanted) -> None:
        """Compare a file that is there with the source, which is verified on the way."""
        check = CopyCheck(item, self._rows)
        there = Xxh3_128()
        found = await self._destination.stat(item.path)
        size = min(found.size, item.file.size) if found is not None else 0
        try:
            partial = Xxh3_128()
            at = 0
            async for piece in self._source.stream(item.path, 0, item.file.size):
                if at < size:
                    await asyncio.to_thread(partial.update, piece[: size - at])
                at += len(piece)
                await asyncio.to_thread(check.feed, memoryview(piece))
            digest = await asyncio.to_thread(check.finish)
        except (IntegrityError, TargetNotFound) as exc:
            await self._damage(item, exc)
            return
        async for piece in self._destination.stream(item.path, 0, size):
            await asyncio.to_thread(there.update, piece)
        if there.digest() != partial.digest() or found is None:
            raise self._conflict(item, "its content is another")
        self._report.compared_files += 1
        self._advance(item.file.size)
        if size == item.file.size:
            await self._record(item, size, digest, copied=False)
        else:
            await self._again(item)

    async def _record(self, item: Wanted, size: int, digest: str, *, copied: bool = True) -> None:
        if copied:
            self._report.copied_files += 1
            self._report.copied_bytes += size
            if item.growing or item.file.size <= _SMALL:
                self._advance(size)
        row = Copied(item.path, size, digest, item.file.size, item.file.modified_us)
        await self._journal.add(item.file.place.incarnation_dir, row)

    async def _damage(self, item: Wanted, exc: IntegrityError | TargetNotFound) -> None:
        if await is_leftover(self._source, self._tree, item.file, exc):
            self._report.notes.append(f"{item.path}: left by an attempt that failed, not copied ({exc.message})")
            return
        where: dict[str, Any] = {"tenant_id": item.tenant_id}
        if item.backup is not None:
            # Who may point into it: what is in the same directory and not older.
            tenant = self._tree.tenants[item.file.place.incarnation_dir, item.tenant_id]
            beside = tenant.sets[item.file.place.unit_dir or ""].backups
            where["sets"] = sorted({item.backup, *(number for number in beside if number >= item.backup)})
        if item.round_id is not None:
            where["round"] = item.round_id
        self._report.damages.append(Damage.of(exc, item.path, **where))
        self._emit(Notice("copy", exc.message))
        keep = isinstance(exc, IntegrityError) and self._request.skip_damaged and item.round_id is not None
        if keep and item.file.place.kind in {FileKind.ARCHIVE_DATA, FileKind.ARCHIVE_INDEX}:
            # The log around the damage may still be needed: it goes along as it is.
            async with self._replacing:
                await self._whole(item, replace=True, keep_damage=True)

    def _conflict(self, item: Wanted, why: str) -> PreconditionError:
        return PreconditionError(
            f"{item.path}: {self._destination.url} has another file of this name: {why}",
            hint="choose an empty place for the copy, or look at what is there with `mover inspect`",
            path=item.path,
        )

    def _advance(self, size: int) -> None:
        self._done += size
        self._emit(
            Progress("copy", 0, bytes_in=self._done, bytes_in_total=max(self._total, self._done), bytes_out=self._done)
        )


def _checked(check: CopyCheck, data: bytes) -> str:
    check.feed(memoryview(data))
    return check.finish()
