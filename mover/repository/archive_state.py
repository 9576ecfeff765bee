"""The records of an archive round: info files, the round record, the stop request."""

from __future__ import annotations

import json
from functools import partial

from mover.errors import OB_LOG_ARCHIVE_NOT_RUNNING, FormatError, PreconditionError
from mover.media.archive_info import (
    ArchiveRound,
    ArchiveStatus,
    current_round,
    decode_archive_rounds,
    encode_archive_rounds,
    update_round,
)
from mover.media.cluster_record import ClusterRecord
from mover.media.layout import SYS_TENANT_ID
from mover.media.round_record import ROUND_RECORD_NAME, STOP_REQUEST_NAME, RoundRecord
from mover.repository.tree import Repository


async def load_rounds(repository: Repository) -> tuple[ArchiveRound, ...]:
    """Every round of the tenant, oldest first; none when the tenant was never archived."""
    path = repository.layout.tenant_clog_backup_info(repository.tenant_id)
    return await repository.read(path, partial(decode_archive_rounds, strict=repository.strict)) or ()


async def publish_rounds(repository: Repository, rounds: tuple[ArchiveRound, ...]) -> None:
    """Rewrite the tenant's list, and the cluster's (which repeats tenant 1's) when this is tenant 1."""
    data = encode_archive_rounds(rounds)
    paths = [repository.layout.tenant_clog_backup_info(repository.tenant_id)]
    if repository.tenant_id == SYS_TENANT_ID:
        paths.append(repository.layout.cluster_clog_backup_info())
    await repository.write_all(paths, data)


async def publish_round(repository: Repository, new: ArchiveRound) -> None:
    """Move the last round to its next state; every rule of OceanBase's transitions is checked."""
    await publish_rounds(repository, update_round(await load_rounds(repository), new))


async def require_doing(repository: Repository) -> ArchiveRound:
    """The current round. Raises PreconditionError (-9029) unless it is DOING."""
    current = current_round(await load_rounds(repository))
    if current is None or current.status != ArchiveStatus.DOING:
        status = "STOP" if current is None else ArchiveStatus(current.status).name
        raise PreconditionError(
            f"log archive is not doing. log archive status : {status}.",
            code=OB_LOG_ARCHIVE_NOT_RUNNING,
            hint="begin a round with `mover archivelog start`",
        )
    return current


def _own(repository: Repository, round_id: int, name: str) -> str:
    return f"{repository.layout.round_dir(repository.tenant_id, round_id)}/{name}"


async def load_record(repository: Repository, round_id: int) -> RoundRecord | None:
    """What mover noted about a round; None for a round that something else wrote."""
    return await repository.read(_own(repository, round_id, ROUND_RECORD_NAME), RoundRecord.decode)


async def publish_record(repository: Repository, record: RoundRecord) -> None:
    """Replace the round record."""
    await repository.write(_own(repository, record.round_id, ROUND_RECORD_NAME), record.encode())


async def load_cluster_record(repository: Repository, round_id: int) -> ClusterRecord | None:
    """What mover noted about a round of a cluster; None for any other round."""
    return await repository.read(repository.layout.cluster_record(round_id), ClusterRecord.decode)


async def load_shown_record(repository: Repository, round_id: int) -> RoundRecord | None:
    """What mover noted about the tenant's round, whether the tenant is one of a cluster's or alone."""
    record = await load_record(repository, round_id)
    if record is None and (of_cluster := await load_cluster_record(repository, round_id)) is not None:
        return of_cluster.of_tenant(repository.tenant_id)
    return record


async def publish_cluster_record(repository: Repository, record: ClusterRecord) -> None:
    """Replace the record of a cluster's round."""
    await repository.write(repository.layout.cluster_record(record.round_id), record.encode())


async def request_stop(repository: Repository, round_id: int, asked_us: int) -> None:
    """Ask whoever archives the round to finish it. Idempotent."""
    data = json.dumps({"asked_us": asked_us, "round_id": round_id}, sort_keys=True).encode()
    await repository.write(_own(repository, round_id, STOP_REQUEST_NAME), data)


async def stop_requested(repository: Repository, round_id: int) -> bool:
    """True once somebody asked."""
    return await repository.target.stat(_own(repository, round_id, STOP_REQUEST_NAME)) is not None


def decode_stop_request(data: bytes) -> dict[str, int]:
    """The content of a stop request. Raises FormatError."""
    try:
        value = json.loads(data)
        if set(value) != {"asked_us", "round_id"} or data != json.dumps(value, sort_keys=True).encode():
            raise ValueError
    except (ValueError, TypeError):
        raise FormatError("bad stop request: expected asked_us and round_id", offset=0) from None
    return {key: int(number) for key, number in value.items()}
