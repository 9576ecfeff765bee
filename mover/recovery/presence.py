"""Files whose absence is damage: what is there proves that they were, because they were written before it.

Only for trees that mover wrote, in the order of writing of ``rootservice.archive`` and ``rootservice.backup``.
A file whose bytes are checked names its own damage, a file that is gone cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mover.media.archive_info import ArchiveRound
from mover.media.backup_info import BackupInfo
from mover.media.layout import SYS_TENANT_ID, FileKind, Layout, MediaPath
from mover.media.pg import PGKey
from mover.repository.sets import complete

Files = Mapping[str, MediaPath | None]
KICKOFF_FILE = 1
_ARCHIVE = {FileKind.ARCHIVE_DATA, FileKind.ARCHIVE_INDEX, FileKind.ARCHIVE_KEY}


def missing_of_sets(layout: Layout, tenant_id: int, files: Files, infos: Iterable[BackupInfo]) -> Iterator[str]:
    """Paths that the tenant's backups cannot be without.

    Args:
        files: every file of the destination.
        infos: the backups of the tenant, as far as they are known.
    """
    wanted = []
    if list(_of(layout, tenant_id, files, {FileKind.MANIFEST})):
        wanted = [layout.tenant_data_backup_info(tenant_id), layout.tenant_info(), layout.tenant_name_info()]
        if tenant_id == SYS_TENANT_ID:
            wanted.append(layout.cluster_data_backup_info())
    wanted += [layout.backup_set_info(tenant_id, info.full_backup_set_id) for info in complete(tuple(infos))]
    yield from (path for path in dict.fromkeys(wanted) if path not in files)


def missing_of_rounds(layout: Layout, tenant_id: int, files: Files, rounds: Iterable[ArchiveRound]) -> Iterator[str]:
    """Paths that the tenant's archive cannot be without; arguments as of :func:`missing_of_sets`.

    The server's ``clog_info`` file is named by its directory: what it was called is not written anywhere else.
    """
    archived = list(_of(layout, tenant_id, files, _ARCHIVE))
    wanted = []
    if archived:
        wanted = [layout.tenant_clog_backup_info(tenant_id)]
        if tenant_id == SYS_TENANT_ID:
            wanted.append(layout.cluster_clog_backup_info())
        servers = f"{layout.incarnation_dir}/clog_info"
        if not any(path.startswith(servers + "/") for path in files):
            wanted.append(servers)
    for info in rounds:
        if info.checkpoint_ts == 0 or info.is_mark_deleted:
            continue  # never came to DOING: its start died, after whichever file
        number = info.round_id
        below = [found for found in archived if found.round_id == number]
        wanted.append(layout.round_record(tenant_id, number))
        if info.is_mount_file_created:
            wanted.append(layout.mount_file(number))
        for pg in sorted({(f.table_id, f.partition_id) for f in below if f.table_id is not None}, key=str):
            key = PGKey(pg[0] or 0, pg[1] or 0)
            wanted.append(layout.archive_key(tenant_id, number, key))
            wanted.append(layout.archive_data(tenant_id, number, key, KICKOFF_FILE))
    yield from (path for path in wanted if path not in files)


def _of(layout: Layout, tenant_id: int, files: Files, kinds: set[FileKind]) -> Iterator[MediaPath]:
    for path, parsed in files.items():
        ours = parsed is not None and parsed.tenant_id == tenant_id and path.startswith(layout.incarnation_dir + "/")
        if parsed is not None and ours and parsed.kind in kinds:
            yield parsed
