"""Every path below a destination: the documented tree, built by :class:`Layout` and read back by :func:`parse_path`.

``<cluster_name>/<cluster_id>/incarnation_1/...``, relative to the root of the destination, POSIX separators. The names
are OceanBase 3.1.0's; ``mover_manifest``, ``mover_written``, ``mover_round``, ``mover_stop`` and ``mover_keys`` are
mover's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from mover.errors import ConfigError
from mover.media.pg import PGKey

INCARNATION = 1
SYS_TENANT_ID = 1
MANIFEST_NAME = "mover_manifest"
WRITTEN_NAME = "mover_written"
ROUND_RECORD_NAME = "mover_round"
CLUSTER_RECORD_NAME = "mover_cluster"
STOP_REQUEST_NAME = "mover_stop"
COPY_RECORD_DIR = "mover_copy"
KEYS_NAME = "mover_keys"
_MAX_CLUSTER_NAME = 128
_NUMBER = r"(0|[1-9][0-9]{0,19})"


class FileKind(Enum):
    """What a file of the tree is."""

    CLUSTER_DATA_BACKUP_INFO = "cluster_data_backup_info"
    CLUSTER_CLOG_BACKUP_INFO = "cluster_clog_backup_info"
    TENANT_INFO = "tenant_info"
    TENANT_NAME_INFO = "tenant_name_info"
    CLOG_INFO = "clog_info"
    TENANT_CLOG_BACKUP_INFO = "tenant_clog_backup_info"
    MOUNT_FILE = "mount_file"
    ARCHIVE_DATA = "archive data"
    ARCHIVE_INDEX = "archive index"
    ARCHIVE_KEY = "archive_key"
    TENANT_DATA_BACKUP_INFO = "tenant_data_backup_info"
    BACKUP_SET_INFO = "backup_set_info"
    META_FILE = "meta_file"
    META_INDEX_FILE = "meta_index_file"
    SYS_PG_LIST = "sys_pg_list"
    NORMAL_PG_LIST = "normal_pg_list"
    TENANT_LOCALITY_INFO = "tenant_locality_info"
    TENANT_DIAGNOSE_INFO = "tenant_diagnose_info"
    MACRO_BLOCK = "macro_block"
    MACRO_BLOCK_INDEX = "macro_block_index"
    CLUSTER_PIECE_INFO = "cluster_backup_piece_info"
    TENANT_PIECE_INFO = "backup_piece_info"
    SINGLE_PIECE_INFO = "single_piece_info"
    SET_FILE_INFO = "backup_set_file_info"
    MANIFEST = "mover_manifest"
    WRITTEN = "mover_written"
    ROUND_RECORD = "mover_round"
    CLUSTER_RECORD = "mover_cluster"
    STOP_REQUEST = "mover_stop"
    COPY_RECORD = "mover_copy"
    KEY_RING = "mover_keys"
    TEMPORARY = "temporary"


@dataclass(frozen=True, slots=True)
class MediaPath:
    """A path of the tree, taken apart. Numbers that its kind does not have are None."""

    kind: FileKind
    path: str  # as given
    root: str = ""  # what precedes the cluster name, "" or ending in "/"
    cluster_name: str | None = None
    cluster_id: int | None = None
    tenant_id: int | None = None
    round_id: int | None = None
    piece_id: int | None = None  # of <round>_<piece>_<date>, later 3.x only
    piece_date: int | None = None
    full_set: int | None = None  # F of backup_set_<F>; later 3.x: the number of the set itself
    set_type: str | None = None  # "full" or "inc" of backup_set_<id>_<type>_<date>, later 3.x only
    set_date: int | None = None
    inc_set: int | None = None  # I of backup_<I>, macro_block_<I>
    table_id: int | None = None
    partition_id: int | None = None
    file_id: int | None = None  # archive data and index; generation of a key ring
    task_id: int | None = None  # meta files; minor_data/<task>
    sub: int | None = None  # macro_block_<I>.<sub>
    retry: int | None = None  # macro_block_index_<I>.<retry>
    server_id: int | None = None
    server: str | None = None  # "ip:port" of clog_info
    minor: bool = False

    @property
    def incarnation_dir(self) -> str:
        """The directory of its cluster, as the path has it."""
        return f"{self.root}{self.cluster_name}/{self.cluster_id}/incarnation_{INCARNATION}"

    @property
    def unit_dir(self) -> str | None:
        """The directory of the backup set, round or piece that it is in; None for files outside of one."""
        if self.full_set is None and self.round_id is None:
            return None
        tenant, part, unit, *_ = self.path[len(self.incarnation_dir) + 1 :].split("/")
        return f"{self.incarnation_dir}/{tenant}/{part}/{unit}"


class Layout:
    """The paths of one cluster's backups.

    Args:
        cluster_name: one path component.
        cluster_id: above 0.

    Raises:
        ConfigError: a name or number that OceanBase would not accept.
    """

    __slots__ = ("cluster_id", "cluster_name")

    def __init__(self, cluster_name: str, cluster_id: int) -> None:
        if (
            not cluster_name
            or cluster_name in {".", ".."}
            or len(cluster_name.encode()) > _MAX_CLUSTER_NAME
            or any(char in "/?\\" or ord(char) < 0x20 or ord(char) == 0x7F for char in cluster_name)
        ):
            raise ConfigError(
                f"cluster name {cluster_name!r} cannot be a directory name",
                hint="Use letters, digits, '_', '-' and '.', at most 128 bytes.",
            )
        if cluster_id <= 0:
            raise ConfigError(f"cluster id {cluster_id} is not above 0", hint="Set [cluster] id to 1 or more.")
        self.cluster_name = cluster_name
        self.cluster_id = cluster_id

    # -- cluster ----------------------------------------------------------------------------------------------------

    @property
    def incarnation_dir(self) -> str:
        """``<name>/<id>/incarnation_1``; directories never end in a slash."""
        return f"{self.cluster_name}/{self.cluster_id}/incarnation_{INCARNATION}"

    def cluster_data_backup_info(self) -> str:
        return f"{self.incarnation_dir}/cluster_data_backup_info"

    def cluster_clog_backup_info(self) -> str:
        return f"{self.incarnation_dir}/cluster_clog_backup_info"

    def tenant_info(self) -> str:
        return f"{self.incarnation_dir}/tenant_info"

    def tenant_name_info(self) -> str:
        return f"{self.incarnation_dir}/tenant_name_info"

    def clog_info(self, server_id: int, ip: str, port: int) -> str:
        """Round start of one server."""
        return f"{self.incarnation_dir}/clog_info/{server_id}_{ip}_{port}"

    @property
    def keys_dir(self) -> str:
        """mover's own: where the wrapped keys of the cluster's backups are."""
        return f"{self.incarnation_dir}/{KEYS_NAME}"

    def key_ring(self, generation: int) -> str:
        """One generation of the key ring; the highest counts."""
        return f"{self.keys_dir}/{generation}"

    def tenant_dir(self, tenant_id: int) -> str:
        return f"{self.incarnation_dir}/{tenant_id}"

    # -- log archive --------------------------------------------------------------------------------------------------

    def tenant_clog_backup_info(self, tenant_id: int) -> str:
        return f"{self.tenant_dir(tenant_id)}/clog/tenant_clog_backup_info"

    def round_dir(self, tenant_id: int, round_id: int) -> str:
        return f"{self.tenant_dir(tenant_id)}/clog/{round_id}"

    def mount_file(self, round_id: int, tenant_id: int = SYS_TENANT_ID) -> str:
        """Under the sys tenant, once per round."""
        return f"{self.round_dir(tenant_id, round_id)}/mount_file"

    def round_record(self, tenant_id: int, round_id: int) -> str:
        """mover's own facts about a round."""
        return f"{self.round_dir(tenant_id, round_id)}/{ROUND_RECORD_NAME}"

    def cluster_record(self, round_id: int) -> str:
        """mover's own facts about a round of a cluster."""
        return f"{self.round_dir(SYS_TENANT_ID, round_id)}/{CLUSTER_RECORD_NAME}"

    def stop_request(self, tenant_id: int, round_id: int) -> str:
        """There while somebody asks the archiver of a round to stop."""
        return f"{self.round_dir(tenant_id, round_id)}/{STOP_REQUEST_NAME}"

    def archive_data_dir(self, tenant_id: int, round_id: int, pg: PGKey) -> str:
        return f"{self.round_dir(tenant_id, round_id)}/data/{pg.table_id}/{pg.partition_id}"

    def archive_index_dir(self, tenant_id: int, round_id: int, pg: PGKey) -> str:
        return f"{self.round_dir(tenant_id, round_id)}/index/{pg.table_id}/{pg.partition_id}"

    def archive_data(self, tenant_id: int, round_id: int, pg: PGKey, file_id: int) -> str:
        return f"{self.archive_data_dir(tenant_id, round_id, pg)}/{file_id}"

    def archive_index(self, tenant_id: int, round_id: int, pg: PGKey, file_id: int) -> str:
        return f"{self.archive_index_dir(tenant_id, round_id, pg)}/{file_id}"

    def archive_key(self, tenant_id: int, round_id: int, pg: PGKey) -> str:
        return f"{self.round_dir(tenant_id, round_id)}/archive_key/{pg.table_id}_{pg.partition_id}"

    # -- data backup --------------------------------------------------------------------------------------------------

    def data_dir(self, tenant_id: int) -> str:
        return f"{self.tenant_dir(tenant_id)}/data"

    def tenant_data_backup_info(self, tenant_id: int) -> str:
        return f"{self.data_dir(tenant_id)}/tenant_data_backup_info"

    def set_dir(self, tenant_id: int, full_set: int) -> str:
        """The directory of a full backup and of the incrementals on it."""
        return f"{self.data_dir(tenant_id)}/backup_set_{full_set}"

    def backup_set_info(self, tenant_id: int, full_set: int) -> str:
        return f"{self.set_dir(tenant_id, full_set)}/backup_set_info"

    def backup_dir(self, tenant_id: int, full_set: int, inc_set: int) -> str:
        """The directory of one backup; ``inc_set == full_set`` for the full itself."""
        return f"{self.set_dir(tenant_id, full_set)}/backup_{inc_set}"

    def meta_file(self, tenant_id: int, full_set: int, inc_set: int, task_id: int) -> str:
        return f"{self.backup_dir(tenant_id, full_set, inc_set)}/meta_file_{task_id}"

    def meta_index_file(self, tenant_id: int, full_set: int, inc_set: int, task_id: int) -> str:
        return f"{self.backup_dir(tenant_id, full_set, inc_set)}/meta_index_file_{task_id}"

    def sys_pg_list(self, tenant_id: int, full_set: int, inc_set: int) -> str:
        return f"{self.backup_dir(tenant_id, full_set, inc_set)}/sys_pg_list"

    def normal_pg_list(self, tenant_id: int, full_set: int, inc_set: int) -> str:
        return f"{self.backup_dir(tenant_id, full_set, inc_set)}/normal_pg_list"

    def tenant_locality_info(self, tenant_id: int, full_set: int, inc_set: int) -> str:
        return f"{self.backup_dir(tenant_id, full_set, inc_set)}/tenant_locality_info"

    def tenant_diagnose_info(self, tenant_id: int, full_set: int, inc_set: int) -> str:
        return f"{self.backup_dir(tenant_id, full_set, inc_set)}/tenant_diagnose_info"

    def manifest(self, tenant_id: int, full_set: int, inc_set: int) -> str:
        """mover's manifest of one backup."""
        return f"{self.backup_dir(tenant_id, full_set, inc_set)}/{MANIFEST_NAME}"

    def written(self, tenant_id: int, full_set: int, inc_set: int, pg: PGKey, sub: int) -> str:
        """What a macro file of an unfinished backup holds."""
        name = f"{WRITTEN_NAME}.{pg.table_id}.{pg.partition_id}.{sub}"
        return f"{self.backup_dir(tenant_id, full_set, inc_set)}/{name}"

    def pg_data_dir(self, tenant_id: int, full_set: int, pg: PGKey) -> str:
        return f"{self.set_dir(tenant_id, full_set)}/data/{pg.table_id}/{pg.partition_id}"

    def _kind_dir(self, tenant_id: int, full_set: int, pg: PGKey, minor_task: int | None) -> str:
        kind = "major_data" if minor_task is None else f"minor_data/{minor_task}"
        return f"{self.pg_data_dir(tenant_id, full_set, pg)}/{kind}"

    def macro_block(
        self, tenant_id: int, full_set: int, pg: PGKey, set_id: int, sub: int, minor_task: int | None = None
    ) -> str:
        """A file of macroblocks that backup ``set_id`` wrote."""
        return f"{self._kind_dir(tenant_id, full_set, pg, minor_task)}/macro_block_{set_id}.{sub}"

    def macro_block_index(
        self, tenant_id: int, full_set: int, pg: PGKey, set_id: int, retry: int = 0, minor_task: int | None = None
    ) -> str:
        """The index of backup ``set_id``; the first attempt has no retry number in its name."""
        name = f"macro_block_index_{set_id}" + (f".{retry}" if retry else "")
        return f"{self._kind_dir(tenant_id, full_set, pg, minor_task)}/{name}"

    # -- back ---------------------------------------------------------------------------------------------------------

    def relative(self, path: str) -> str:
        """``path`` relative to the incarnation directory, as manifests name files. Raises ValueError outside of it."""
        prefix = self.incarnation_dir + "/"
        if not path.startswith(prefix):
            raise ValueError(f"{path} is not below {prefix}")
        return path[len(prefix) :]

    def absolute(self, relative: str) -> str:
        """The inverse of :meth:`relative`. Raises ValueError for a path that would leave the tree."""
        if not is_safe_relative(relative):
            raise ValueError(f"unsafe relative path {relative!r}")
        return f"{self.incarnation_dir}/{relative}"

    def parse(self, path: str) -> MediaPath | None:
        """What ``path`` is, or None when it is not a file of this cluster's tree."""
        parsed = parse_path(path)
        if parsed is None or parsed.root or parsed.cluster_name != self.cluster_name:
            return None
        return parsed if parsed.cluster_id == self.cluster_id else None


def is_safe_relative(path: str) -> bool:
    """True for a path of plain components: not absolute, no empty, ``.`` or ``..`` component, no NUL, no backslash."""
    return all(part not in {"", ".", ".."} for part in path.split("/")) and not any(c in "\\\x00" for c in path)


_PREFIX = re.compile(rf"(?P<root>.*/)?(?P<name>[^/]+)/{_NUMBER}/incarnation_{INCARNATION}/(?P<rest>.+)", re.DOTALL)
_TEMPORARY = re.compile(r".*\.tmp(\.[0-9]+(\.[0-9a-f]+)?)?", re.DOTALL)

_N = r"(?:0|[1-9][0-9]{0,19})"
_SET = rf"backup_set_(?P<full_set>{_N})(?:_(?P<set_type>full|inc)_(?P<set_date>[0-9]{{8}}))?"
_ROUND = rf"(?P<tenant_id>{_N})/clog/(?P<round_id>{_N})(?:_(?P<piece_id>{_N})_(?P<piece_date>[0-9]{{8}}))?"
_PG_DIR = rf"(?P<table_id>{_N})/(?P<partition_id>-?{_N})"
_BACKUP = rf"(?P<tenant_id>{_N})/data/{_SET}(?:/backup_(?P<inc_set>{_N}))?"
_MACRO_DIR = (
    rf"(?P<tenant_id>{_N})/data/{_SET}/data/{_PG_DIR}/(?:major_data/|(?P<minor>minor_data)/(?P<task_id>{_N})/)?"
)


def _patterns() -> Iterator[tuple[FileKind, re.Pattern[str]]]:
    def rule(kind: FileKind, pattern: str) -> tuple[FileKind, re.Pattern[str]]:
        return kind, re.compile(pattern)

    for kind in (
        FileKind.CLUSTER_DATA_BACKUP_INFO,
        FileKind.CLUSTER_CLOG_BACKUP_INFO,
        FileKind.TENANT_INFO,
        FileKind.TENANT_NAME_INFO,
    ):
        yield rule(kind, kind.value)
    # Later 3.x; "backup_backup" is what a secondary backup's own list is called.
    copies = r"(?:backup_)?backup"
    yield rule(FileKind.CLUSTER_PIECE_INFO, rf"cluster_{copies}_piece_info")
    yield rule(FileKind.TENANT_PIECE_INFO, rf"(?P<tenant_id>{_N})/clog/{copies}_piece_info")
    yield rule(FileKind.SINGLE_PIECE_INFO, rf"{_ROUND}/single_piece_info")
    yield rule(FileKind.SET_FILE_INFO, rf"cluster_{copies}_set_file_info")
    yield rule(FileKind.SET_FILE_INFO, rf"(?P<tenant_id>{_N})/(?:data/)?tenant_{copies}_set_file_info")
    yield rule(FileKind.SET_FILE_INFO, rf"(?P<tenant_id>{_N})/data/{_SET}/single_backup_set_info")
    yield rule(FileKind.COPY_RECORD, rf"{COPY_RECORD_DIR}/[0-9a-f]+\.[0-9]+")
    yield rule(FileKind.KEY_RING, rf"{KEYS_NAME}/(?P<file_id>{_N})")
    yield rule(FileKind.CLOG_INFO, rf"clog_info/(?P<server_id>{_N})_(?P<ip>[0-9A-Za-z.:]+)_(?P<port>{_N})")
    yield rule(FileKind.TENANT_CLOG_BACKUP_INFO, rf"(?P<tenant_id>{_N})/clog/tenant_clog_backup_info")
    for kind in (FileKind.MOUNT_FILE, FileKind.ROUND_RECORD, FileKind.CLUSTER_RECORD, FileKind.STOP_REQUEST):
        yield rule(kind, rf"{_ROUND}/{kind.value}")
    yield rule(FileKind.ARCHIVE_DATA, rf"{_ROUND}/data/{_PG_DIR}/(?P<file_id>{_N})")
    yield rule(FileKind.ARCHIVE_INDEX, rf"{_ROUND}/index/{_PG_DIR}/(?P<file_id>{_N})")
    yield rule(FileKind.ARCHIVE_KEY, rf"{_ROUND}/archive_key/(?P<table_id>{_N})_(?P<partition_id>-?{_N})")
    yield rule(FileKind.TENANT_DATA_BACKUP_INFO, rf"(?P<tenant_id>{_N})/data/tenant_data_backup_info")
    yield rule(FileKind.BACKUP_SET_INFO, rf"(?P<tenant_id>{_N})/data/{_SET}/backup_set_info")
    for kind in (
        FileKind.SYS_PG_LIST,
        FileKind.NORMAL_PG_LIST,
        FileKind.TENANT_LOCALITY_INFO,
        FileKind.TENANT_DIAGNOSE_INFO,
        FileKind.MANIFEST,
    ):
        yield rule(kind, rf"{_BACKUP}/{kind.value}")
    for kind in (FileKind.META_FILE, FileKind.META_INDEX_FILE):
        yield rule(kind, rf"{_BACKUP}/{kind.value}_(?P<task_id>{_N})")
    yield rule(
        FileKind.WRITTEN,
        rf"{_BACKUP}/{WRITTEN_NAME}\.(?P<table_id>{_N})\.(?P<partition_id>-?{_N})\.(?P<sub>{_N})",
    )
    yield rule(FileKind.MACRO_BLOCK, rf"{_MACRO_DIR}macro_block_(?P<inc_set>{_N})\.(?P<sub>{_N})")
    yield rule(
        FileKind.MACRO_BLOCK_INDEX, rf"{_MACRO_DIR}macro_block_index_(?P<inc_set>{_N})(?:\.(?P<retry>[1-9][0-9]*))?"
    )


_RULES = tuple(_patterns())


def parse_path(path: str) -> MediaPath | None:
    """What a path is, whatever precedes the cluster directory; None when it is no file of a backup tree.

    Also knows the directory names of later 3.x (``backup_set_1_full_20211225``, ``<round>_<piece>_<date>``).
    """
    prefix = _PREFIX.fullmatch(path)
    if prefix is None:
        return None
    base = MediaPath(
        FileKind.TEMPORARY, path, prefix["root"] or "", cluster_name=prefix["name"], cluster_id=int(prefix[3])
    )
    rest = prefix["rest"]
    if not is_safe_relative(rest):
        return None
    if _TEMPORARY.fullmatch(rest):
        return base
    for kind, pattern in _RULES:
        match = pattern.fullmatch(rest)
        if match is None:
            continue
        groups = match.groupdict()
        server = f"{groups.pop('ip')}:{groups.pop('port')}" if "ip" in groups else None
        minor = groups.pop("minor", None) is not None
        set_type = groups.pop("set_type", None)
        numbers = {name: int(text) for name, text in groups.items() if text is not None}
        return MediaPath(
            kind,
            path,
            base.root,
            base.cluster_name,
            base.cluster_id,
            server=server,
            set_type=set_type,
            minor=minor,
            **numbers,
        )
    return None
