"""Validate: read back what the destination holds and say, file by file, what is not what it must be.

Every file is checked once, by the strongest means there is for it: a manifest's digest, else its own checksums and a
strict decode. Sets are checked against their index and manifest, rounds against their chain. Damage is collected, never
raised: one bad file does not hide the next.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mover.encryption.cipher import NO_KEYS, Keys
from mover.encryption.sources import KeySource
from mover.errors import (
    Cancelled,
    EncryptionKeyError,
    IntegrityError,
    LogGapError,
    MoverError,
    PreconditionError,
    TargetNotFound,
)
from mover.events import Emit, Phase, Progress, ignore
from mover.media.backup_info import BackupInfo
from mover.media.inspect import describe
from mover.media.layout import FileKind, Layout, MediaPath, parse_path
from mover.media.pg import PGKey
from mover.recovery.findings import Damage
from mover.recovery.first_error import each
from mover.recovery.foreign import ForeignCheck
from mover.recovery.foreign_tree import BackupTree, scan_tree
from mover.recovery.locked_log import check_locked_log
from mover.recovery.macro_files import MacroFile, plan_macro_files
from mover.recovery.macro_reader import MacroReader
from mover.recovery.plan import Recoverable
from mover.recovery.presence import missing_of_rounds, missing_of_sets
from mover.repository.archive_state import load_record, load_rounds
from mover.repository.keys import load_keys
from mover.repository.pieces import pieces
from mover.repository.rounds import RoundReader
from mover.repository.sets import LoadedSet, complete, load_infos, load_locked_set, load_set, read_checked
from mover.repository.tree import READS, Repository
from mover.target.base import ObjectInfo
from mover.target.slots import most_of

_ARCHIVE_KINDS = {FileKind.ARCHIVE_DATA, FileKind.ARCHIVE_INDEX, FileKind.ARCHIVE_KEY}


@dataclass(frozen=True, slots=True)
class ValidateRequest:
    """What to check. Without ``set_id`` and ``archive`` everything is.

    Args:
        set_id: this set and the older files it points into.
        archive: the archived log.
        everything: all sets and all log, said explicitly.
        sample: share of the macro files to read, percent; everything else is always read.
        memory: ceiling of the buffers that macroblocks are read into, bytes.
        concurrency: requests under way; None for as many as pay. workers: threads that verify and decompress.
        key_sources: what opens the keys of encrypted sets and log; without any those are checked as far as that goes.
    """

    set_id: int | None = None
    archive: bool = False
    everything: bool = False
    sample: float | None = None
    memory: int = 256 << 20
    concurrency: int | None = None
    workers: int = 2
    key_sources: tuple[KeySource, ...] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that is not what it must be. ``path`` is relative to the destination.

    ``where`` has more of the place in a tree that OceanBase wrote: tenant_id, pg, sets, from_log_id, until_log_id.
    """

    path: str
    offset: int
    kind: str
    message: str
    where: dict[str, Any] = field(default_factory=dict, compare=False)

    def as_json(self) -> dict[str, Any]:
        return {"path": self.path, "offset": self.offset, "kind": self.kind, "message": self.message, **self.where}


@dataclass(slots=True)
class ValidateReport:
    """What was read and what is wrong."""

    checked_files: int = 0
    checked_bytes: int = 0
    checked_sets: list[int] = field(default_factory=list)
    checked_rounds: list[int] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    notes: list[Violation] = field(default_factory=list)  # worth knowing, no damage; trees of OceanBase's own only
    recoverable: list[Recoverable] = field(default_factory=list)  # what still can be restored of such trees
    not_decrypted: list[str] = field(default_factory=list)
    """Sets and rounds that were checked without their key: digests, checksums and structure, but no content."""

    @property
    def ok(self) -> bool:
        return not self.violations

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "checked_files": self.checked_files,
            "checked_bytes": self.checked_bytes,
            "sets": self.checked_sets,
            "rounds": self.checked_rounds,
            "not_decrypted": self.not_decrypted,
            "violations": [violation.as_json() for violation in self.violations],
            "notes": [note.as_json() for note in self.notes],
            "windows": [window.as_json() for found in self.recoverable for window in found.windows],
            "holes": [hole.as_json() for found in self.recoverable for hole in found.holes],
        }


async def validate(
    repository: Repository, request: ValidateRequest, *, emit: Emit = ignore, stop: asyncio.Event | None = None
) -> ValidateReport:
    """Check the destination.

    Every cluster and tenant found at the destination is checked when no set is named.

    Raises:
        PreconditionError: there is no backup at all, or the named set is not a complete one.
        EncryptionKeyError: a key was given, and what is encrypted needs another one.
        Cancelled: ``stop`` was set.
    """
    report = ValidateReport()
    work = asyncio.ensure_future(_Validation(repository, request, report, emit).run())
    stopping = asyncio.ensure_future(stop.wait() if stop is not None else asyncio.Event().wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Cancelled("the validation was cancelled; nothing was changed")
        work.result()
    finally:
        work.cancel()
        stopping.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)
    report.violations.sort(key=lambda found: (found.path, found.offset))
    return report


class _Validation:
    """One run: which files there are, which were checked, and what was found."""

    def __init__(self, repository: Repository, request: ValidateRequest, report: ValidateReport, emit: Emit) -> None:
        self._home = repository
        self._request = request
        self._report = report
        self._emit = emit
        self._files: dict[str, tuple[ObjectInfo, MediaPath | None]] = {}
        self._checked: set[str] = set()
        self._total = 0  # bytes of all files
        self._tree: BackupTree | None = None
        self._keys: dict[tuple[str | None, int | None], Keys] = {}  # by cluster name and id
        self._movers: set[int | None] = set()  # tenants whose tree mover wrote: there a missing manifest is damage

    async def run(self) -> None:
        async for info in self._home.target.list(""):
            parsed = parse_path(info.path)
            self._files[info.path] = (info, parsed)
            self._total += info.size
            if parsed is not None and parsed.kind in {FileKind.MANIFEST, FileKind.ROUND_RECORD}:
                self._movers.add(parsed.tenant_id)
        tenants = sorted(self._tenants())
        if not any(parsed for _, parsed in self._files.values()):
            raise PreconditionError(f"there is no backup at {self._home.target.url}", hint="check --dest")
        everything = self._request.everything or (self._request.set_id is None and not self._request.archive)
        for cluster_name, cluster_id, tenant_id in tenants:
            if tenant_id not in self._movers:
                await self._foreign(cluster_name, cluster_id, tenant_id, everything)
                continue
            layout = Layout(cluster_name, cluster_id)
            repository = Repository(self._home.target, layout, tenant_id)
            keys = self._keys.get((cluster_name, cluster_id))
            if keys is None:
                keys = self._keys[cluster_name, cluster_id] = await load_keys(repository, self._request.key_sources)
            repository = replace(repository, keys=keys)
            if everything or self._request.set_id is not None:
                await self._sets(repository)
            if everything or self._request.archive:
                await self._rounds(repository)
        if self._request.set_id is not None and self._request.set_id not in self._report.checked_sets:
            raise PreconditionError(
                f"backup set {self._request.set_id} is not a complete set", hint="`mover show sets`"
            )
        if everything:
            await self._rest()

    def _tenants(self) -> set[tuple[str, int, int]]:
        found = set()
        for _, parsed in self._files.values():
            if parsed is not None and parsed.cluster_name is not None and parsed.cluster_id is not None:
                found.add((parsed.cluster_name, parsed.cluster_id, parsed.tenant_id or self._home.tenant_id))
        return found

    # --- backup sets -----------------------------------------------------------------------------------------------

    async def _sets(self, repository: Repository) -> None:
        infos = await self._guard(
            repository.layout.tenant_data_backup_info(repository.tenant_id), load_infos(repository)
        )
        self._missing(missing_of_sets(repository.layout, repository.tenant_id, self._paths(), infos or ()))
        wanted = self._request.set_id
        checks: dict[str, MacroFile] = {}
        for info in complete(infos or ()):
            if wanted is not None and info.inc_backup_set_id != wanted:
                continue
            self._report.checked_sets.append(info.inc_backup_set_id)
            path = repository.layout.manifest(repository.tenant_id, info.full_backup_set_id, info.inc_backup_set_id)
            self._emit(Phase("validate", "set", str(info.inc_backup_set_id)))
            loaded = await self._guard(path, self._load(repository, info))
            if loaded is not None:
                self._count(path)
                await self._small_files(repository, loaded)
                await self._merge(repository, loaded, checks)
        chosen = [check for check in checks.values() if self._chosen(check)]
        request = self._request
        async with MacroReader(
            self._home.target, memory=request.memory, concurrency=request.concurrency, lanes=request.workers
        ) as reader:
            await self._each(chosen, lambda check: self._macro_file(reader, check))

    async def _load(self, repository: Repository, info: BackupInfo) -> LoadedSet:
        try:
            return await load_set(repository, info)
        except EncryptionKeyError as exc:
            self._without_key(repository, f"set {info.inc_backup_set_id}", exc)
            return await load_locked_set(repository, info)

    def _without_key(self, repository: Repository, what: str, exc: EncryptionKeyError) -> None:
        """Note that something is checked without its key, unless a key was given and does not fit."""
        if repository.keys or repository.keys.refusal is not None:
            raise exc
        self._report.not_decrypted.append(f"{what}, encrypted with data key {exc.where.get('key_id', '')}")

    async def _small_files(self, repository: Repository, loaded: LoadedSet) -> None:
        """Everything of the set but its macro files: digest, then a strict decode."""
        for row in loaded.files:
            path = repository.layout.absolute(row.path)
            parsed = parse_path(path)
            if path in self._checked or (parsed is not None and parsed.kind is FileKind.MACRO_BLOCK):
                continue
            data = await self._guard(path, read_checked(repository, loaded.files, path))
            if data is not None:
                await self._decode(path, partial(bytes, data))

    async def _merge(self, repository: Repository, loaded: LoadedSet, checks: dict[str, MacroFile]) -> None:
        """Sets share macro files: each file is read once and serves all of them."""
        plan = await self._guard(loaded.manifest_path, _now(lambda: plan_macro_files(repository, loaded)))
        for check in plan or []:
            known = checks.setdefault(check.path, check)
            if known is check:
                continue
            if known.row != check.row:
                self._violation(check.path, 0, "IntegrityError", "two manifests disagree about this file")
            for offset, placement in check.expected.items():
                other = known.expected.setdefault(offset, placement)
                if other.digest != placement.digest:
                    text = f"sets disagree about the block at offset {offset}"
                    self._violation(check.path, offset, "IntegrityError", text)

    def _chosen(self, check: MacroFile) -> bool:
        """Whether the sample has this file; who is not in it counts as checked."""
        if self._request.sample is None or random.random() * 100 < self._request.sample:
            return True
        self._checked.add(check.path)
        return False

    async def _macro_file(self, reader: MacroReader, check: MacroFile) -> None:
        await self._guard(check.path, reader.read(check, self._advance, everything=True))
        self._count(check.path, sized=False)

    def _advance(self, _blocks: int, size: int) -> None:
        self._report.checked_bytes += size
        self._show()

    # --- trees of OceanBase's own ------------------------------------------------------------------------------------

    async def _foreign(self, cluster_name: str, cluster_id: int, tenant_id: int, everything: bool) -> None:
        """A tenant of a tree that OceanBase wrote: no manifest vouches for it."""
        if self._tree is None:
            self._tree = scan_tree(info for info, _ in self._files.values())
        for tenant in self._tree.tenants.values():
            if (tenant.cluster_name, tenant.cluster_id, tenant.tenant_id) == (cluster_name, cluster_id, tenant_id):
                request = self._request
                self._emit(Phase("validate", "tenant", str(tenant_id)))
                check = ForeignCheck(
                    self._home.target, tenant, concurrency=most_of(request.concurrency), read=self._read_whole
                )
                report = await check.check(
                    set_id=request.set_id,
                    sets=everything or request.set_id is not None,
                    log=everything or request.archive,
                )
                self._report.checked_sets += report.sets
                self._report.checked_rounds += report.rounds
                self._report.recoverable.append(report.recoverable)
                self._checked |= report.unpromised
                for damage in report.findings.damages:
                    self._checked.add(damage.path)
                    self._report.violations.append(_violation(damage))
                self._report.notes += map(_violation, report.findings.notes)

    def _read_whole(self, path: str, _size: int) -> None:
        self._count(path)

    # --- archive ---------------------------------------------------------------------------------------------------

    async def _rounds(self, repository: Repository) -> None:
        path = repository.layout.tenant_clog_backup_info(repository.tenant_id)
        rounds = await self._guard(path, load_rounds(repository)) or ()
        self._missing(missing_of_rounds(repository.layout, repository.tenant_id, self._paths(), rounds))
        for info in rounds:
            self._report.checked_rounds.append(info.round_id)
            self._emit(Phase("validate", "round", str(info.round_id)))
            prefix = repository.layout.round_dir(repository.tenant_id, info.round_id)
            record = await self._guard(f"{prefix}/mover_round", load_record(repository, info.round_id))
            below = self._below(prefix)
            pgs = {(p.table_id, p.partition_id) for _, p in below if p is not None and p.kind in _ARCHIVE_KINDS}
            if record is None:
                continue
            if not pgs and record.checkpoint_lsn > record.start_lsn:
                text = f"log [{record.start_lsn}, {record.checkpoint_lsn}) was archived, but no file of it is there"
                self._violation(f"{prefix}/mover_round", 0, "LogGapError", text)
            for table_id, partition_id in sorted(pgs, key=str):
                if table_id is not None and partition_id is not None:
                    reader = RoundReader(repository, info.round_id, PGKey(table_id, partition_id))
                    await self._guard(prefix, reader.check_files())
                    try:
                        await self._guard(prefix, self._log(reader, record.start_lsn, record.checkpoint_lsn))
                    except EncryptionKeyError as exc:
                        self._without_key(repository, f"round {info.round_id}", exc)
                        await self._guard(prefix, self._locked_log(reader, record.checkpoint_scn))

    async def _log(self, reader: RoundReader, start_lsn: int, checkpoint_lsn: int) -> None:
        """Every byte the checkpoint covers, in order, with its chain; what lies behind is decoded with the rest."""
        if checkpoint_lsn <= start_lsn:
            return
        try:
            async with aclosing(reader.log(start_lsn, checkpoint_lsn)) as runs:
                async for _ in runs:
                    pass
        finally:
            for path in reader.verified:
                self._count(path)

    async def _locked_log(self, reader: RoundReader, checkpoint_scn: int) -> None:
        for path in await check_locked_log(reader, checkpoint_scn):
            self._count(path)

    # --- everything else --------------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Decode every file that no manifest vouched for."""
        self._emit(Phase("validate", "files"))
        rest = [path for path, (_, parsed) in self._files.items() if parsed is not None and path not in self._checked]
        await self._each(rest, self._one)

    async def _one(self, path: str) -> None:
        size = self._files[path][0].size
        loop = asyncio.get_running_loop()
        await self._decode(path, lambda: pieces(self._home.target, path, size, loop))
        self._count(path)

    async def _decode(self, path: str, data: Callable[[], bytes | Iterator[bytes]]) -> None:
        """Decode a file; ``data()`` is what is in it, read again when it does not decode."""
        parsed = parse_path(path)
        # Files of the whole cluster are mover's when any tenant is.
        movers = parsed is not None and (
            parsed.tenant_id in self._movers if parsed.tenant_id is not None else bool(self._movers)
        )
        keys = self._keys.get((parsed.cluster_name, parsed.cluster_id), NO_KEYS) if parsed is not None else NO_KEYS
        for _ in range(READS):
            found = await self._guard(path, asyncio.to_thread(describe, path, data(), strict=movers, keys=keys))
            if found is None or found["ok"]:
                break
        self._count(path)
        if found is not None and not found["ok"]:
            error = found.get("error") or {"message": "damaged blocks", "kind": "FormatError"}
            self._violation(path, int(error.get("offset") or 0), str(error["kind"]), str(error["message"]))

    # --- accounting -------------------------------------------------------------------------------------------------

    async def _guard(self, path: str, work: Awaitable[Any]) -> Any:
        """The result of ``work``, or None after noting the damage it found."""
        try:
            return await work
        except (IntegrityError, LogGapError, TargetNotFound) as exc:
            self._damage(path, exc)
            return None

    def _damage(self, path: str, exc: MoverError) -> None:
        named = str(exc.where.get("path") or path)
        self._checked.add(named)
        self._violation(named, int(exc.where.get("offset") or 0), exc.kind, exc.message)

    def _violation(self, path: str, offset: int, kind: str, message: str) -> None:
        found = Violation(path, offset, kind, message)
        if found not in self._report.violations:
            self._report.violations.append(found)

    def _missing(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._violation(path, 0, "TargetNotFound", f"{path} is missing, but what was written after it is there")

    def _paths(self) -> dict[str, MediaPath | None]:
        return {path: parsed for path, (_, parsed) in self._files.items()}

    def _count(self, path: str, *, sized: bool = True) -> None:
        if path not in self._checked:
            self._report.checked_files += 1
            self._report.checked_bytes += self._files[path][0].size if sized and path in self._files else 0
        self._checked.add(path)
        self._show()

    def _below(self, prefix: str) -> list[tuple[str, MediaPath | None]]:
        return [(path, parsed) for path, (_, parsed) in self._files.items() if path.startswith(prefix + "/")]

    async def _each(self, items: Iterable[Any], check: Callable[[Any], Awaitable[None]]) -> None:
        """A few at a time; what is no damage, an unreachable destination, ends them all."""
        await each(items, most_of(self._request.concurrency), check)

    def _show(self) -> None:
        self._emit(
            Progress("validate", self._home.tenant_id, bytes_in=self._report.checked_bytes, bytes_in_total=self._total)
        )


def _violation(damage: Damage) -> Violation:
    return Violation(damage.path, damage.offset, damage.kind, damage.message, damage.where)


async def _now(work: Callable[[], Any]) -> Any:
    return work()
