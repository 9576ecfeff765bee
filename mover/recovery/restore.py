"""Restore: from a backup set and its log to a store that boots, exactly as of one SCN.

Every byte is verified before it is written: frames against their checksums, blocks against the manifest's digests, and
so are files that are read whole; log against its chain. Nothing has the name of a store until all of it is there and
durable.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mover.clock import iso_from_scn
from mover.errors import Cancelled, IntegrityError, TargetError
from mover.events import Emit, Phase, Progress, ignore
from mover.kernel import palf_cut, palf_walk
from mover.media.frames import iter_frames
from mover.media.header import DataType
from mover.media.manifest import SetFacts
from mover.media.meta import ExtentAssembler, MetaType, iter_meta_records
from mover.media.pg import PGKey
from mover.media.sealed import Opening
from mover.recovery.first_error import each
from mover.recovery.macro_files import MacroFile, plan_macro_files
from mover.recovery.macro_reader import MacroReader
from mover.recovery.plan import RestorePoint, choose
from mover.recovery.windows import load_spans
from mover.repository.archive_state import load_record
from mover.repository.log_file import LogRun
from mover.repository.rounds import RoundReader
from mover.repository.sets import LoadedSet, load_infos, load_set, read_checked
from mover.repository.tree import Repository, name_file
from mover.settled import settled
from mover.store.base import StoreFile
from mover.store.seekdb.rebuild import StoreBuilder
from mover.store.seekdb.server import engine_command
from mover.target.slots import most_of

ENGINE_PORT = 2881  # the engine's default; the last --port of a command line counts
PARTIAL_NAME = "store.partial"
_LANES_PER_WORKER = 2  # half of their time they wait for the disk that they write to
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore and where to.

    Args:
        target: base directory of the new store; must be empty or not exist.
        set_id: the set to begin with; None takes the newest that fits.
        until_scn, until_us: the moment, inclusive; at most one; None restores all archived log.
        preview: decide and report, read and write nothing else.
        memory: ceiling of the buffers that macroblocks are read into, bytes.
        concurrency: requests under way; None for as many as pay. workers: processors for verifying and decompressing.
    """

    target: Path
    set_id: int | None = None
    until_scn: int | None = None
    until_us: int | None = None
    preview: bool = False
    memory: int = 256 << 20
    concurrency: int | None = None
    workers: int = 2


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored, or would be."""

    target: Path
    point: RestorePoint
    facts: SetFacts
    bytes_to_read: int
    blocks: int
    log_disk_size: str
    preview: bool
    log_end_scn: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = field(default=())

    @property
    def engine_command(self) -> list[str]:
        """How to boot the result."""
        parameters = {**self.facts.parameters, "log_disk_size": self.log_disk_size}
        return engine_command(self.target, port=ENGINE_PORT, parameters=parameters)

    def as_json(self) -> dict[str, Any]:
        return {
            "target": str(self.target),
            "tenant_id": self.facts.tenant_id,
            "set": self.point.set.set_id,
            "round": self.point.round.round_id,
            "until_scn": self.point.until_scn,
            "until": iso_from_scn(self.point.until_scn),
            "log_end_scn": self.log_end_scn,
            "macro_block_count": self.blocks,
            "bytes_to_read": self.bytes_to_read,
            "log_disk_size": self.log_disk_size,
            "engine_command": self.engine_command,
            "engine_command_line": shlex.join(self.engine_command),
            "preview": self.preview,
            "elapsed_seconds": round(self.seconds, 3),
        }


async def restore(
    repository: Repository, request: RestoreRequest, *, emit: Emit = ignore, stop: asyncio.Event | None = None
) -> RestoreReport:
    """Restore as ``request`` says.

    Raises:
        PreconditionError: the moment lies in no recoverable window (the hint lists them), or the target is not empty.
        IntegrityError: a byte at the destination is not what it must be; the message names the file.
        LogGapError: log is missing.
        EncryptionKeyError: set or log is encrypted with a key that is not at hand; nothing was written.
        Cancelled: ``stop`` was set; the target is empty again.
    """
    until = request.until_scn
    if request.until_us is not None:
        until = request.until_us * 1000
    damaged: dict[int, IntegrityError] = {}
    sets, rounds = await load_spans(repository, damaged=damaged)
    for number, exc in damaged.items():
        # Which moments the damaged set reached is not known: only who names another set goes on without it.
        if request.set_id in (None, number):
            exc.hint = exc.hint or "--set restores from another set; `mover show sets` lists them"
            raise exc
    point = choose(repository.tenant_id, sets, rounds, set_id=request.set_id, until_scn=until)
    info = next(i for i in await load_infos(repository) if i.inc_backup_set_id == point.set.set_id)
    loaded = await load_set(repository, info)
    await _require_log_keys(repository, point, loaded.facts.pg)
    log_bytes = _log_bytes(point)
    files = plan_macro_files(repository, loaded)
    lanes = request.workers * _LANES_PER_WORKER
    reader = MacroReader(repository.target, memory=request.memory, concurrency=request.concurrency, lanes=lanes)
    to_read = bytes_to_read(repository, loaded, {file.path: reader.plan(file).bytes for file in files})
    report = RestoreReport(
        target=request.target,
        point=point,
        facts=loaded.facts,
        bytes_to_read=to_read + log_bytes,
        blocks=len(loaded.placements),
        log_disk_size=_log_disk_size(loaded.facts, log_bytes),
        preview=request.preview,
    )
    if request.preview:
        return report
    began = asyncio.get_running_loop().time()
    existed = request.target.exists()
    try:
        builder = StoreBuilder(request.target, loaded.facts.block_file_size)
    except OSError as exc:
        raise _unwritable(request.target, exc) from exc
    running = _Restore(repository, request, point, loaded, files, reader, to_read, builder, emit)
    work = asyncio.ensure_future(running.run())
    stopping = asyncio.ensure_future(stop.wait() if stop is not None else asyncio.Event().wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Cancelled(f"the restore to {request.target} was cancelled", hint="the directory is empty again")
        end_scn = work.result()
    except BaseException as exc:
        work.cancel()
        stopping.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)
        await asyncio.shield(asyncio.to_thread(_discard, builder, existed))
        if isinstance(exc, OSError):
            raise _unwritable(request.target, exc) from exc
        raise
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    seconds = asyncio.get_running_loop().time() - began
    return RestoreReport(**{**_fields(report), "log_end_scn": end_scn, "seconds": seconds})


async def _require_log_keys(repository: Repository, point: RestorePoint, pg: PGKey) -> None:
    """Before anything is written: every data key that log of the round needs is at hand, else EncryptionKeyError."""
    record = await load_record(repository, point.round.round_id)
    for key_id in record.keys if record is not None else ():
        repository.keys.get(bytes.fromhex(key_id))
    if record is None:
        # Then the log itself says which key it needs.
        reader = RoundReader(repository, point.round.round_id, pg)
        files = [number for number, _ in await reader.data_files()]
        first = await reader.find(point.set.start_lsn, files)
        for file_id in files[first:]:
            await reader.first_lsn(file_id)


def _fields(report: RestoreReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in report.__dataclass_fields__}


def _unwritable(target: Path, exc: OSError) -> TargetError:
    reason = (exc.strerror or "i/o error").lower()
    return TargetError(
        f"cannot write the restored store to {target}: {reason}",
        hint="check the free space and the permissions there; what was written was removed",
        path=str(target),
    )


def _discard(builder: StoreBuilder, existed: bool) -> None:
    """Leave the target as it was found."""
    builder.close()
    shutil.rmtree(builder.target / PARTIAL_NAME, ignore_errors=True)
    if not existed:
        try:
            builder.target.rmdir()
        except OSError:
            pass  # somebody put something there meanwhile; it is theirs


def bytes_to_read(repository: Repository, loaded: LoadedSet, planned: Mapping[str, int]) -> int:
    """Bytes of a set's files that a restore reads: of a macro file what is planned, of the others all."""
    return sum(planned.get(repository.layout.absolute(file.path), file.size) for file in loaded.files)


def _log_bytes(point: RestorePoint) -> int:
    return max(0, point.round.checkpoint_lsn - point.set.start_lsn)


def _log_disk_size(facts: SetFacts, log_bytes: int) -> str:
    """The engine records its log disk size and refuses less; and all restored log must fit below its threshold."""
    recorded = parse_engine_size(str(facts.parameters.get("log_disk_size", "2G")))
    needed = log_bytes + log_bytes // 4 + _GIB
    size = max(recorded, -(-needed // _GIB) * _GIB)
    return f"{size // _GIB}G" if size % _GIB == 0 else f"{-(-size // (1 << 20))}M"


def parse_engine_size(text: str) -> int:
    """Bytes of an engine parameter: ``2G``, ``512M``, ``2147483648``. Raises IntegrityError."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    body = text.strip().upper().removesuffix("B")
    unit = units.get(body[-1:], 1)
    digits = body[:-1] if body[-1:] in units else body
    if not digits.isdecimal():
        raise IntegrityError(f"the set records a log_disk_size of {text!r}, which is not a size")
    return int(digits) * unit


class _Restore:
    """One restore in progress."""

    def __init__(
        self,
        repository: Repository,
        request: RestoreRequest,
        point: RestorePoint,
        loaded: LoadedSet,
        files: list[MacroFile],
        reader: MacroReader,
        to_read: int,
        builder: StoreBuilder,
        emit: Emit,
    ) -> None:
        self._repository = repository
        self._request = request
        self._point = point
        self._loaded = loaded
        self._files = files
        self._reader = reader
        self._total = to_read
        self._builder = builder
        self._emit = emit
        self._blocks = 0
        self._bytes = 0

    async def run(self) -> int:
        """Everything, in the order that leaves no half store. Returns the SCN of the last log entry kept."""
        self._emit(Phase("restore", "blocks", str(self._request.target)))
        await self._restore_blocks()
        self._emit(Phase("restore", "log", f"until SCN {self._point.until_scn}"))
        end_scn = await self._restore_log()
        self._emit(Phase("restore", "meta"))
        await self._restore_meta()
        await settled(None, self._builder.finish)
        return end_scn

    async def _restore_blocks(self) -> None:
        request, write = self._request, self._builder.write_block
        async with self._reader as reader:
            await each(
                self._files, most_of(request.concurrency), lambda file: reader.read(file, self._advance, write=write)
            )
        self._show()
        later = {self._meta_path(self._loaded.facts), *(file.path for file in self._files)}
        for row in self._loaded.files:
            # The small files are not needed to boot; they are part of what the set promises, so they are read too.
            path = self._repository.layout.absolute(row.path)
            if path not in later:
                await read_checked(self._repository, self._loaded.files, path)

    def _advance(self, blocks: int, size: int) -> None:
        self._blocks += blocks
        self._bytes += size
        self._show()

    def _show(self) -> None:
        self._emit(
            Progress(
                "restore",
                self._repository.tenant_id,
                blocks_done=self._blocks,
                blocks_total=len(self._loaded.placements),
                bytes_in=self._bytes,
                bytes_in_total=self._total,
            )
        )

    async def _restore_log(self) -> int:
        point, builder = self._point, self._builder
        reader = RoundReader(self._repository, point.round.round_id, self._loaded.facts.pg)
        end_scn = 0
        reached = point.set.start_lsn
        accum: int | None = None
        done = False
        until = max(point.round.checkpoint_lsn, point.set.end_lsn)
        async with aclosing(reader.log(point.set.start_lsn, until)) as runs:
            async for run in runs:
                data, done, scn = await asyncio.to_thread(cut_run, run, point.until_scn, accum)
                if data:
                    await settled(None, builder.append_log, run.lsn, run.block_header, data)
                    reached, end_scn = run.lsn + len(data), scn
                if done:
                    break
                accum = run.cursor.accum
        if reached < point.set.end_lsn:
            raise IntegrityError(
                f"log of round {point.round.round_id} up to SCN {point.until_scn} ends at LSN {reached}, but set"
                f" {point.set.set_id} needs it up to LSN {point.set.end_lsn}",
                lsn=reached,
            )
        if not done and end_scn < min(point.until_scn, point.round.checkpoint_scn):
            raise IntegrityError(
                f"log of round {point.round.round_id} ends at SCN {end_scn}, LSN {reached}, but its checkpoint says SCN"
                f" {point.round.checkpoint_scn}",
                hint="`mover validate --archive` tells which file is short",
                lsn=reached,
            )
        return end_scn

    def _meta_path(self, facts: SetFacts) -> str:
        layout = self._repository.layout
        relative = layout.relative(layout.backup_dir(facts.tenant_id, facts.full_backup_set_id, facts.backup_set_id))
        for file in self._loaded.files:
            if file.path.startswith(f"{relative}/meta_file_"):
                return layout.absolute(file.path)
        raise IntegrityError(f"{self._loaded.manifest_path}: no meta file in it", path=self._loaded.manifest_path)

    async def _restore_meta(self) -> None:
        path = self._meta_path(self._loaded.facts)
        data = await read_checked(self._repository, self._loaded.files, path)
        try:
            opening = Opening.of(path, self._repository.keys) if self._loaded.facts.key_id else None
            files = await asyncio.to_thread(read_meta_files, data, opening)
        except IntegrityError as exc:
            raise name_file(exc, path) from None
        # block_file last: its superblocks are what makes an engine look at the rest.
        for file in sorted(files, key=lambda f: f.path == "sstable/block_file"):
            await settled(None, self._builder.write_file, file)


def read_meta_files(data: bytes, opening: Opening | None = None) -> tuple[StoreFile, ...]:
    """The store files in a meta file, decrypted by ``opening``. Raises FormatError."""
    assembler = ExtentAssembler()
    for record in iter_meta_records(iter_frames(data, data_type=DataType.META, opening=opening)):
        if record.meta_type in (MetaType.SUPERBLOCKS, MetaType.STORE_FILE):
            assembler.add(record)
    return tuple(StoreFile(file.path, file.size, file.extents) for file in assembler.finish())


def cut_run(run: LogRun, until_scn: int, accum: int | None) -> tuple[bytes, bool, int]:
    """What of a run belongs to the moment.

    Args:
        run: verified groups.
        until_scn: the moment, inclusive.
        accum: PALF's accumulated checksum before the run; None = not known, then its first group cannot be shortened.

    Returns:
        (bytes to keep, True when the moment ends inside or before the run, SCN of the last entry kept).
    """
    if run.max_scn <= until_scn:
        return run.data, False, run.max_scn
    kept = bytearray()
    scn = 0
    for group in palf_walk(run.data, run.lsn).rows():
        whole = run.data[group.offset : group.offset + group.size]
        if group.max_scn <= until_scn:
            kept += whole
            accum, scn = group.accum, group.max_scn
            continue
        if group.min_scn <= until_scn:
            if accum is None:
                raise IntegrityError(f"log group at LSN {run.lsn + group.offset} cannot be cut: its chain is unknown")
            if shortened := palf_cut(whole, until_scn, accum):
                kept += shortened
                scn = palf_walk(shortened, run.lsn + group.offset).max_scn
        break
    return bytes(kept), True, scn
