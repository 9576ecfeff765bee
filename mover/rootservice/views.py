"""Backup sets as `mover show` prints them, in the form of OceanBase's views. The destination knows all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mover.clock import iso_from_scn, iso_from_us
from mover.errors import IntegrityError
from mover.media.backup_info import BackupInfo, BackupStatus
from mover.media.manifest import SetFacts
from mover.media.set_info import BackupSetInfo, set_view
from mover.recovery.windows import load_spans
from mover.repository.archive_state import load_rounds
from mover.repository.sets import load_facts, load_infos, load_set_infos, manifest_path
from mover.repository.tenants import known_tenants, of_tenant
from mover.repository.tree import Repository
from mover.rootservice.session import Session


@dataclass(frozen=True, slots=True)
class SetView:
    """One backup set as it is shown. ``restorable``: the archive has passed its end."""

    tenant_id: int
    info: BackupInfo
    stats: BackupSetInfo | None
    facts: SetFacts | None
    restorable: bool
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        facts = self.facts
        view = set_view(
            self.tenant_id,
            self.info,
            self.stats,
            min_restore_scn=facts.end_scn if facts else 0,
            reused_macro_block_count=int(facts.extra.get("reused_macro_block_count", 0)) if facts else 0,
            elapsed_seconds=(facts.finished_us - facts.started_us) / 1e6 if facts else 0.0,
        )
        view["start_time"] = iso_from_us(self.info.backup_snapshot_version)
        at = self.info.backup_snapshot_version if self.info.status == BackupStatus.SUCCESS else None
        view["min_restore_time"] = iso_from_scn(facts.end_scn) if facts else at and iso_from_us(at)
        view["restorable"] = self.restorable
        view["compression"] = facts.compression if facts else None
        view["readable_by_oceanbase"] = facts.readable_by_oceanbase if facts else None
        view["encrypted_with"] = (facts.key_id or None) if facts else None
        view["proof"] = dict(facts.proof) if facts else None
        view["read_bytes"] = facts.extra.get("read_bytes") if facts else None
        view["tuning"] = facts.extra.get("tuning") if facts else None
        if self.warnings:
            view["warnings"] = list(self.warnings)
        return view


@dataclass(frozen=True, slots=True)
class Rows:
    """A list under one name."""

    name: str
    rows: tuple[Mapping[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        return {self.name: [dict(row) for row in self.rows]}


async def set_view_of(repository: Repository, info: BackupInfo, *, restorable: bool) -> SetView:
    """Everything the destination says about one set."""
    good = info.status == BackupStatus.SUCCESS
    warnings: tuple[str, ...] = ()
    facts = None
    if good:
        try:
            facts = await load_facts(repository, info)
        except IntegrityError as exc:
            warnings = (exc.message,)
    stats = next(
        (
            record
            for record in await load_set_infos(repository, info.full_backup_set_id)
            if record.backup_set_id == info.inc_backup_set_id
        ),
        None,
    )
    damaged = facts.proof.get("damaged_blocks") if facts else None
    if damaged:
        text = f"{len(damaged)} blocks that nothing refers to do not match their checksum and were left out"
        warnings = (f"{text}: {damaged[:8]}",)
    return SetView(repository.tenant_id, info, stats if good else None, facts, restorable, warnings)


async def sets(session: Session) -> Rows:
    """Every backup of every tenant, oldest first."""
    rows: list[Mapping[str, Any]] = []
    for tenant in await known_tenants(session.repository):
        # A later OceanBase appends members to its lists: to look at them they need not be what mover writes.
        repository = replace(of_tenant(session.repository, tenant), strict=False)
        infos = await load_infos(repository)
        if not infos:
            continue
        spans, rounds = await load_spans(repository, damaged={})
        restorable = {span.set_id for span in spans if any(found.covers(span) for found in rounds)}
        restorable |= await _covered(repository, infos)
        for info in infos:
            view = await set_view_of(repository, info, restorable=info.inc_backup_set_id in restorable)
            rows.append(view.as_json())
    return Rows("sets", tuple(rows))


async def _covered(repository: Repository, infos: Sequence[BackupInfo]) -> set[int]:
    """Sets without a manifest of mover's, as a cluster has them, that restore from their snapshot on."""
    spans = [(found.start_ts, found.checkpoint_ts) for found in await load_rounds(repository)]
    found = set()
    for info in infos:
        at = info.backup_snapshot_version
        if info.status == BackupStatus.SUCCESS and any(start <= at <= end for start, end in spans):
            path = manifest_path(repository, info)
            if await repository.target.stat(path) is None:
                found.add(info.inc_backup_set_id)
    return found
