"""What the next backup is: its number and type, what it builds on, and what an interrupted one has of it already."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mover.datapath.compression import Compression
from mover.encryption.cipher import DataKey
from mover.errors import OB_ENTRY_NOT_EXIST, PreconditionError, StateError
from mover.media.backup_info import (
    COMPATIBLE_310,
    BackupInfo,
    BackupStatus,
    BackupType,
    last_success,
    next_set_id,
)
from mover.repository.sets import LoadedSet, load_cluster_infos, load_infos, load_set
from mover.repository.tree import Repository
from mover.repository.unfinished import Unfinished, load_unfinished, unfinished_backup
from mover.rootservice.key_settings import require_same, writing_key
from mover.rootservice.session import Session
from mover.rootservice.tenant_files import cluster_version


@dataclass(frozen=True, slots=True)
class BackupPlan:
    """What a backup would do; nothing was written."""

    tenant_id: int
    backup_set_id: int
    full_backup_set_id: int
    prev_backup_set_id: int
    backup_type: str
    reason: str
    path: str
    restorable: bool = True
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        plan = dataclasses.asdict(self)
        del plan["restorable"], plan["warnings"]
        return {"plan": plan}


@dataclass(frozen=True, slots=True)
class Decision:
    """The set that will be made."""

    info: BackupInfo
    previous: LoadedSet | None
    key: DataKey | None  # encrypts the set
    stale: tuple[BackupInfo, ...]  # backups that failed, or whose coordinator died, and may have left files
    reason: str
    resumed: Unfinished | None = None  # of an earlier attempt at this set

    def plan(self, repository: Repository) -> BackupPlan:
        """What would be done."""
        info = self.info
        path = repository.layout.backup_dir(repository.tenant_id, info.full_backup_set_id, info.inc_backup_set_id)
        return BackupPlan(
            tenant_id=repository.tenant_id,
            backup_set_id=info.inc_backup_set_id,
            full_backup_set_id=info.full_backup_set_id,
            prev_backup_set_id=info.prev_inc_backup_set_id,
            backup_type=BackupType(info.backup_type).letter,
            reason=self.reason,
            path=path,
        )


async def decide(session: Session, incremental: bool | None, *, planned: bool) -> Decision:
    """Number and type of the set, what it builds on, what an earlier attempt has of it, and its key.

    Args:
        incremental: see :func:`mover.rootservice.backup.run`.
        planned: nothing is made; otherwise the destination's first key.
    """
    key = await writing_key(session, make=not planned)
    repository = session.repository
    infos = await load_infos(repository)
    interrupted = unfinished_backup(infos)
    if incremental is None:
        if interrupted is None:
            raise PreconditionError(
                "there is no interrupted backup to go on with",
                code=OB_ENTRY_NOT_EXIST,
                hint="`mover backup full` or `incremental` begins one",
            )
        incremental = interrupted.backup_type == BackupType.INCREMENTAL
    number = next_set_id(infos, await load_cluster_infos(repository))
    # Every backup clears away what failed since the last good one, so that older failures have nothing left.
    good = max((info.inc_backup_set_id for info in infos if info.status == BackupStatus.SUCCESS), default=0)
    base = last_success(infos) if incremental else None
    resumed = await _resumed(session, interrupted, base, key)
    if resumed is not None:
        number = resumed.info.inc_backup_set_id
    stale = tuple(i for i in infos if i.status != BackupStatus.SUCCESS and good < i.inc_backup_set_id != number)
    reason = ""
    if incremental and base is None:
        reason = "there is no complete backup to build on: the incremental becomes a full"
    if resumed is not None:
        there = len(resumed.placements)
        reason = f"backup set {number} was interrupted: going on with it, {there} blocks of it are there already"
    previous = await load_set(repository, base) if base is not None else None
    if previous is not None:
        require_same(f"backup set {previous.facts.backup_set_id}", previous.facts.key_id, key)
    now_us = session.clock.now_us()
    if resumed is not None:
        # It must differ from the attempt before, whatever the clock did: see resume_backup.
        now_us = max(now_us, resumed.info.backup_snapshot_version + 1)
    identity = await session.store.identity()
    if previous is not None and previous.facts.engine != identity.kind:
        raise StateError(f"backup set {previous.facts.backup_set_id} was taken of a {previous.facts.engine} store")
    info = BackupInfo(
        full_backup_set_id=base.full_backup_set_id if base else number,
        inc_backup_set_id=number,
        backup_data_version=now_us,
        backup_snapshot_version=now_us,
        backup_schema_version=now_us,
        frozen_snapshot_version=now_us,
        frozen_schema_version=now_us,
        prev_full_backup_set_id=base.full_backup_set_id if base else 0,
        prev_inc_backup_set_id=base.inc_backup_set_id if base else 0,
        prev_backup_data_version=base.backup_data_version if base else 0,
        compatible=COMPATIBLE_310,
        cluster_version=cluster_version(identity.version),
        backup_type=BackupType.INCREMENTAL if base else BackupType.FULL,
        status=BackupStatus.DOING,
    )
    return Decision(info, previous, key, stale, reason, resumed)


async def _resumed(
    session: Session, interrupted: BackupInfo | None, base: BackupInfo | None, key: DataKey | None
) -> Unfinished | None:
    """What is there of an interrupted backup on ``base`` (None: of a full one), if that is worth going on with."""
    builds_on = base.inc_backup_set_id if base else 0
    if interrupted is None or interrupted.prev_inc_backup_set_id != builds_on:
        return None
    if session.repository.target.capabilities.locks:
        return None  # what the earlier attempt wrote under the names of the end cannot be removed
    identity = await session.store.identity()
    label = Compression.parse(session.settings.compression).label
    key_id = "" if key is None else key.name
    found = await load_unfinished(session.repository, interrupted, identity.pg, label, key_id)
    return found if found.placements else None
