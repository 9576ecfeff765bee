"""Restore of a foreign tree to a directory per PG: its blocks, its metas, its log up to the moment, and an inventory.

No engine that mover starts reads these: they are for a 3.1 cluster's own tools, for forensics, and as proof. Every byte
is verified before it is written, by the same checks as `mover validate`, and read in streams.

::

    <target>/restored.json                       what was restored, and every PG
    <target>/<tenant>/<table>_<partition>/
        blocks.<n>                               macroblocks back to back, each as it occupied its 2 MiB
        block_metas                              ObFullMacroBlockMetaEntry of each block, in the same order
        meta.<type>                              bodies of the PG's meta records
        log.<n>                                  log entries back to back, as archived, uncompressed
        inventory.json                           per block its logical id, place and digest; per log file its ids
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mover.clock import iso_from_scn
from mover.errors import Cancelled, IntegrityError, PreconditionError, TargetError
from mover.events import Emit, Phase, Progress, ignore
from mover.media.backup_info import BackupInfo
from mover.recovery.first_error import each
from mover.recovery.foreign import ForeignCheck
from mover.recovery.foreign_infos import Run, TenantInfos, runs_of
from mover.recovery.foreign_restore_pg import PgRestore
from mover.recovery.foreign_set import SetContent, partition_of, read_set
from mover.recovery.foreign_tree import TenantTree, scan_tree
from mover.recovery.plan import Window, describe
from mover.target.base import Target
from mover.target.slots import most_of

PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class ForeignRestoreRequest:
    """What to restore.

    Args:
        target: directory that does not exist or is empty.
        tenant_id: whose; None when the tree has only one with backups.
        set_id: None takes the newest set that fits. until_scn: the moment, inclusive; None for all archived log.
        preview: decide and report only.
        concurrency: PGs under way; None for as many as pay.
    """

    target: Path
    tenant_id: int | None = None
    set_id: int | None = None
    until_scn: int | None = None
    preview: bool = False
    concurrency: int | None = None


@dataclass(slots=True)
class ForeignRestoreReport:
    """What was restored, or would be."""

    target: Path
    tenant: TenantTree
    set_id: int
    round_id: int
    until_scn: int
    pgs: int
    preview: bool
    blocks: int = 0
    block_bytes: int = 0
    log_entries: int = 0
    log_bytes: int = 0
    files: list[dict[str, Any]] = field(default_factory=list)  # by PG

    def as_json(self) -> dict[str, Any]:
        return {
            "target": str(self.target),
            "cluster_name": self.tenant.cluster_name,
            "cluster_id": self.tenant.cluster_id,
            "tenant_id": self.tenant.tenant_id,
            "set": self.set_id,
            "round": self.round_id,
            "until_scn": self.until_scn,
            "until": iso_from_scn(self.until_scn),
            "pg_count": self.pgs,
            "macro_block_count": self.blocks,
            "block_bytes": self.block_bytes,
            "log_entries": self.log_entries,
            "log_bytes": self.log_bytes,
            "preview": self.preview,
        }


async def foreign_tenants(target: Target) -> list[TenantTree]:
    """The tenants at a destination that OceanBase backed up."""
    tree = scan_tree([info async for info in target.list("")])
    found = [tenant for tenant in tree.tenants.values() if tenant.sets and not tenant.by_mover]
    return sorted(found, key=lambda t: (t.incarnation_dir, t.tenant_id))


async def restore_foreign(
    target: Target,
    tenants: list[TenantTree],
    request: ForeignRestoreRequest,
    *,
    emit: Emit = ignore,
    stop: asyncio.Event | None = None,
) -> ForeignRestoreReport:
    """Restore as ``request`` says.

    Args:
        tenants: as of :func:`foreign_tenants`.

    Raises:
        PreconditionError: the tenant is not clear, the moment lies in no recoverable window, or the target is in use.
        IntegrityError: a byte is not what it must be; the message names the file. The target is as it was.
        Cancelled: ``stop`` was set; the target is as it was.
    """
    tenant = _tenant(tenants, request.tenant_id)
    check = ForeignCheck(target, tenant, concurrency=most_of(request.concurrency))
    infos = await check.load()
    windows = (await check.windows()).recoverable.windows
    window, until, info = _choose(tenant, infos, windows, request)
    run = next(r for r in runs_of(tenant, infos) if r.round_id == window.round_id and r.covers(info))
    directory = tenant.find_backup(info.full_backup_set_id, info.inc_backup_set_id)
    assert directory is not None, "a set in a window has a directory"
    content, findings = await read_set(target, tenant, directory, info.inc_backup_set_id, lambda _path, _size: None)
    if findings.damages:
        raise IntegrityError(findings.damages[0].message, path=findings.damages[0].path)
    report = ForeignRestoreReport(
        request.target, tenant, info.inc_backup_set_id, window.round_id, until, len(content.pgs), request.preview
    )
    if request.preview:
        return report
    existed = request.target.exists()
    if existed and any(request.target.iterdir()):
        raise PreconditionError(f"{request.target} is not empty", hint="name an empty or new directory")
    work = asyncio.ensure_future(_ForeignRestore(target, tenant, content, run, report, request, emit).run())
    stopping = asyncio.ensure_future(stop.wait() if stop is not None else asyncio.Event().wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Cancelled(f"the restore to {request.target} was cancelled", hint="the directory is empty again")
        work.result()
    except BaseException as exc:
        work.cancel()
        stopping.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)
        await asyncio.shield(asyncio.to_thread(_discard, request.target, existed))
        if isinstance(exc, OSError):
            reason = (exc.strerror or "i/o error").lower()
            raise TargetError(
                f"cannot write to {request.target}: {reason}", hint="check free space and permissions"
            ) from exc
        raise
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    return report


def _tenant(tenants: list[TenantTree], wanted: int | None) -> TenantTree:
    found = [tenant for tenant in tenants if wanted in (None, tenant.tenant_id)]
    names = ", ".join(f"{t.cluster_name}/{t.cluster_id}/{t.tenant_id}" for t in tenants)
    if len(found) != 1:
        what = "no tenant is named" if wanted is None else f"there is not one tenant {wanted}"
        raise PreconditionError(f"{what}, and the destination has backups of {names}", hint="say --tenant N")
    return found[0]


def _choose(
    tenant: TenantTree, infos: TenantInfos, windows: tuple[Window, ...], request: ForeignRestoreRequest
) -> tuple[Window, int, BackupInfo]:
    """The window, the moment and the set: the newest one that ends by the moment."""
    by_id = {info.inc_backup_set_id: info for info in infos.backups}
    fitting = []
    for window in windows:
        until = window.until_scn if request.until_scn is None else request.until_scn
        if not window.from_scn <= until <= window.until_scn:
            continue
        for number in window.sets:
            snapshot = by_id[number].backup_snapshot_version * 1000
            if request.set_id in (None, number) and snapshot <= until:
                fitting.append((window, until, by_id[number]))
    if not fitting:
        when = "the newest moment" if request.until_scn is None else f"SCN {request.until_scn}"
        which = "any backup set" if request.set_id is None else f"backup set {request.set_id}"
        raise PreconditionError(
            f"{when} cannot be restored from {which} of tenant {tenant.tenant_id}",
            hint=f"recoverable: {describe(windows)}",
        )
    return max(fitting, key=lambda found: (found[1], found[2].backup_snapshot_version))


def _discard(target: Path, existed: bool) -> None:
    if not target.exists():
        return
    for entry in target.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if not existed:
        target.rmdir()


class _ForeignRestore:
    """One restore in progress."""

    def __init__(
        self,
        source: Target,
        tenant: TenantTree,
        content: SetContent,
        run: Run,
        report: ForeignRestoreReport,
        request: ForeignRestoreRequest,
        emit: Emit,
    ) -> None:
        self._source = source
        self._tenant = tenant
        self._content = content
        self._run = run
        self._report = report
        self._request = request
        self._emit = emit
        self._until_us = report.until_scn // 1000

    async def run(self) -> None:
        self._emit(Phase("restore", "pgs", str(self._request.target)))
        pgs = {(pg.table_id, partition_of(pg)) for pg in self._content.pgs} | set(self._run.pgs())
        await each(sorted(pgs), most_of(self._request.concurrency), self._pg)
        self._report.files.sort(key=lambda row: (row["table_id"], row["partition_id"]))
        entry = {**self._report.as_json(), "pgs": self._report.files}
        await asyncio.to_thread(_write_json, self._request.target / "restored.json", entry)

    async def _pg(self, pg: tuple[int, int]) -> None:
        final = self._request.target / str(self._tenant.tenant_id) / f"{pg[0]}_{pg[1]}"
        directory = final.with_name(final.name + PARTIAL)
        await asyncio.to_thread(directory.mkdir, parents=True)
        one = PgRestore(self._source, self._tenant, self._content, self._run, pg, directory, self._until_us)
        await one.run()
        report = self._report
        report.blocks += one.blocks
        report.block_bytes += one.block_bytes
        report.log_entries += one.log_entries
        report.log_bytes += one.log_bytes
        report.files.append(
            {"table_id": pg[0], "partition_id": pg[1], "blocks": one.blocks, "log_entries": one.log_entries}
        )
        await asyncio.to_thread(directory.rename, final)
        moved = report.block_bytes + report.log_bytes
        self._emit(
            Progress(
                "restore",
                self._tenant.tenant_id,
                partitions_done=len(report.files),
                partitions_total=report.pgs,
                blocks_done=report.blocks,
                bytes_in=moved,
            )
        )


def _write_json(path: Path, entry: Any) -> None:
    with path.open("x") as file:
        json.dump(entry, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
