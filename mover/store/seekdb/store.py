"""A seekdb as a :class:`mover.store.base.Store`, from its URL."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from mover.errors import ConfigError
from mover.media.pg import PGKey
from mover.store.base import SlabSource, StoreIdentity
from mover.store.seekdb.capture import DEFAULT_SPOOL_MEMORY, SeekdbCapture
from mover.store.seekdb.catalog import Catalog
from mover.store.seekdb.log import SeekdbLog
from mover.store.seekdb.offline import OfflineCapture, StoppedEngine
from mover.store.seekdb.paths import StorePaths

PASSWORD_VARIABLE = "MOVER_SOURCE_PASSWORD"  # noqa: S105 - the name of a variable
TENANT_ID = 1
LOG_STREAM_ID = 1
_DEFAULT_PORT = 2881
_MIB = 1 << 20
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# What a restored store must be started with; all else the operator may choose anew.
_PARAMETERS = ("log_disk_size", "datafile_size", "datafile_maxsize")
_OPTIONS = frozenset({"user", "host", "port", "socket", "offline", "data_dir", "redo_dir"})


class SeekdbStore:
    """An opened seekdb; nothing is connected before it is asked for something.

    Args:
        catalog: the running engine, or None for a stopped one.
        scratch: where a capture may spool what it reads inside its window; None = the system's temporary directory.
        spool_memory: bytes of it that stay in memory.
    """

    def __init__(
        self,
        paths: StorePaths,
        catalog: Catalog | None,
        *,
        cluster_name: str = "seekdb",
        cluster_id: int = 1,
        port: int = _DEFAULT_PORT,
        scratch: Path | None = None,
        spool_memory: int = DEFAULT_SPOOL_MEMORY,
    ) -> None:
        self.paths = paths
        self.catalog = catalog
        self._cluster_name = cluster_name
        self._cluster_id = cluster_id
        self._port = port
        self._scratch = scratch
        self._spool_memory = spool_memory

    @property
    def offline(self) -> bool:
        """Is this a stopped store?"""
        return self.catalog is None

    async def identity(self) -> StoreIdentity:
        """See :class:`mover.store.base.Store`.

        Raises:
            UnreachableError: the engine does not answer.
            PreconditionError: opened as stopped, but an engine runs.
        """
        if self.catalog is not None:
            version = await self.catalog.version()
            parameters = await self.catalog.parameters(*_PARAMETERS)
            address, port, log_disk = await self.catalog.server()
            # "0M" lets the engine choose; what it chose is recorded in the store and needed again.
            if capacity(parameters.get("log_disk_size", "")) < log_disk:
                parameters["log_disk_size"] = in_mebibytes(log_disk)
        else:
            StoppedEngine(self.paths).release()
            version = "OceanBase seekdb (stopped)"
            address, port = "127.0.0.1", self._port
            parameters = await asyncio.to_thread(stored_parameters, self.paths)
        return StoreIdentity(
            kind="seekdb",
            version=version,
            cluster_name=self._cluster_name,
            cluster_id=self._cluster_id,
            tenant_id=TENANT_ID,
            tenant_name="sys",
            server_ip=address,
            server_port=port,
            pg=PGKey.of_log_stream(TENANT_ID, LOG_STREAM_ID),
            parameters=parameters,
        )

    async def capture(self, slabs: SlabSource) -> SeekdbCapture | OfflineCapture:
        """See :class:`mover.store.base.Store`."""
        if self.catalog is None:
            return OfflineCapture(self.paths, slabs)
        return SeekdbCapture(self.paths, self.catalog, slabs, scratch=self._scratch, spool_memory=self._spool_memory)

    async def log(self, holder: str) -> SeekdbLog:
        """See :class:`mover.store.base.Store`; PreconditionError when another process is this holder."""
        return await SeekdbLog.open(self.paths, holder, self.catalog)

    async def aclose(self) -> None:
        """Close the connection. Logs and captures are closed by whoever opened them."""
        if self.catalog is not None:
            await self.catalog.aclose()


def open_seekdb(
    url: str,
    *,
    user: str = "root",
    password: str | None = None,
    offline: bool = False,
    cluster_name: str = "seekdb",
    cluster_id: int = 1,
    scratch: Path | None = None,
    spool_memory: int = DEFAULT_SPOOL_MEMORY,
) -> SeekdbStore:
    """Open ``seekdb:///base/dir?user=root&host=...&port=...&socket=...&offline=1``.

    Without ``host`` the unix socket of the base directory is used. ``data_dir`` and ``redo_dir`` are the engine's
    parameters of these names, for stores that do not have them below ``store/``.

    Args:
        user: who signs in when the URL names nobody.
        password: None takes it from the environment variable MOVER_SOURCE_PASSWORD, else it is empty.
        offline: the engine is stopped (as ``offline=1`` in the URL).

    Raises:
        ConfigError: the URL does not parse, or there is no seekdb store at its path.
    """
    parts = urlsplit(url)
    if parts.scheme != "seekdb" or parts.fragment:
        raise ConfigError(f"not a seekdb source: scheme {parts.scheme!r}", hint="seekdb:///base/dir?user=root")
    if parts.netloc:
        # A password typed here would be in the process list and in the shell's history.
        raise ConfigError(
            "a seekdb source has three slashes and no host or user before the path",
            hint=f"write seekdb:///base/dir?user=...&host=...; the password belongs into {PASSWORD_VARIABLE}",
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = options.keys() - _OPTIONS
    if unknown:
        hint = f"use {PASSWORD_VARIABLE}" if "password" in unknown else f"known are: {', '.join(sorted(_OPTIONS))}"
        raise ConfigError(f"unknown option {sorted(unknown)[0]!r} in the seekdb source", hint=hint)
    base = unquote(parts.path)
    if not base.startswith("/") or base == "/":
        raise ConfigError("a seekdb source needs the engine's base directory", hint="seekdb:///base/dir")
    paths = StorePaths.of_base(base, options.get("data_dir", "store"), options.get("redo_dir", ""))
    paths.check()
    try:
        port = int(options.get("port", str(_DEFAULT_PORT)))
    except ValueError:
        raise ConfigError(f"port {options['port']!r} in the seekdb source is not a number") from None
    catalog = None
    if not offline and options.get("offline", "0") in ("0", "", "false", "no"):
        catalog = Catalog(
            user=options.get("user", user),
            password=os.environ.get(PASSWORD_VARIABLE, "") if password is None else password,
            socket=Path(options["socket"]) if "socket" in options else paths.socket,
            host=options.get("host"),
            port=port,
        )
    return SeekdbStore(
        paths,
        catalog,
        cluster_name=cluster_name,
        cluster_id=cluster_id,
        port=port,
        scratch=scratch,
        spool_memory=spool_memory,
    )


def stored_parameters(paths: StorePaths) -> dict[str, str]:
    """Start parameters of a stopped store, from the engine's own meta.db (SQLite), which may be missing.

    ``log_disk_size`` decides whether a copy boots: it must not be less than what the store was made with (-4624). Where
    it is not recorded the engine took a share of the disk, 30 % or, for a log disk of its own, 90 %; that share of the
    whole filesystem cannot be too small.
    """
    found: dict[str, str] = {}
    try:
        # immutable: no lock and no journal file is made in a directory that is not ours.
        database = sqlite3.connect(f"file:{quote(str(paths.meta_db))}?mode=ro&immutable=1", uri=True)
        with closing(database):
            marks = ",".join("?" * len(_PARAMETERS))
            rows = database.execute(f"SELECT name, value FROM __all_sys_parameter WHERE name IN ({marks})", _PARAMETERS)
            found = {str(name): str(value) for name, value in rows}
    except sqlite3.Error:
        found = {}
    if not capacity(found.get("log_disk_size", "")):
        own_disk = os.stat(paths.palf_log).st_dev != os.stat(paths.block_file).st_dev
        status = os.statvfs(paths.palf_log)
        share = status.f_blocks * status.f_frsize * (90 if own_disk else 30) // 100
        found["log_disk_size"] = in_mebibytes(share)
    return found


def capacity(text: str) -> int:
    """Bytes of a size in the engine's spelling ("2G", "64M", "1T", plain bytes); 0 for what is not one."""
    number, unit = text.strip().rstrip("bB"), 1
    if number and number[-1].upper() in _UNITS:
        number, unit = number[:-1], _UNITS[number[-1].upper()]
    return int(number) * unit if number.isascii() and number.isdecimal() else 0


def in_mebibytes(size: int) -> str:
    """A size in bytes, rounded up, in the engine's spelling."""
    return f"{-(-size // _MIB)}M"
