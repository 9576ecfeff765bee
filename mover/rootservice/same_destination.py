"""Whether a directory is the destination that it was: NFS that is not mounted looks like a new, empty one.

While a destination is open its mount is watched (:mod:`mover.target.mount`). This looks at what lies there: before a
run, and now and then during one, because a server can lose what it exports. Source of ``mount_file``: OceanBase 3.1,
which writes it once a round on NFS and answers -9051 when it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select

from mover.errors import OB_MOUNT_FILE_NOT_VALID, MountError
from mover.media.archive_info import ArchiveRound
from mover.repository.tree import Repository
from mover.rootservice.catalog_tables import archive_round
from mover.rootservice.session import Session


async def require_known_rounds(session: Session, rounds: Sequence[ArchiveRound]) -> None:
    """A directory without any round is no destination that the catalog knows rounds of. Raises MountError (-9051).

    Args:
        rounds: what the destination has.
    """
    repository = session.repository
    if rounds or not _is_directory(repository):
        return
    async with session.catalog.begin() as connection:
        newest = await connection.scalar(
            select(func.max(archive_round.c.round_id)).where(archive_round.c.tenant_id == repository.tenant_id)
        )
    if newest is not None:
        raise MountError(
            f"{repository.target.url} has no archive round, and the catalog knows {newest} of tenant "
            f"{repository.tenant_id} there: its file system is not mounted, or another one is",
            hint="mount it and repeat the command; `mover catalog rebuild` forgets what was emptied on purpose",
            code=OB_MOUNT_FILE_NOT_VALID,
            tenant_id=repository.tenant_id,
        )


async def require_mount_file(repository: Repository, info: ArchiveRound) -> None:
    """The round's ``mount_file`` is there, if it ever was. Raises MountError (-9051)."""
    path = repository.layout.mount_file(info.round_id)
    if info.is_mount_file_created and _is_directory(repository) and await repository.target.stat(path) is None:
        raise MountError(
            f"{path} is missing at {repository.target.url}: it is not the file system of round {info.round_id}",
            hint="look at what is mounted there; nothing more was written",
            code=OB_MOUNT_FILE_NOT_VALID,
            path=path,
        )


def _is_directory(repository: Repository) -> bool:
    return repository.target.capabilities.device_type == "FILE"
