"""Opening a cluster of observers, or the simulated one, from its URL."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from mover.errors import ConfigError
from mover.store.observer.catalog import Catalog
from mover.store.observer.cluster import ObserverCluster
from mover.store.observer.tables import CATALOG_NAME, FileTables, SqlTables

PASSWORD_VARIABLE = "MOVER_SOURCE_PASSWORD"  # noqa: S105 - the name of a variable
_DEFAULT_PORT = 2881
_DEFAULT_USER = "root@sys"
_SIM_DATA_DIR = "observer_{id}/store"
_OPTIONS = frozenset({"data_dir"})
SCHEMES = ("oceanbase", "sim")


def open_observer(url: str, *, user: str | None = None, password: str | None = None) -> ObserverCluster:
    """Open ``oceanbase://user@host:2881/?data_dir=...`` or ``sim:///dir``; nothing is connected yet.

    Args:
        user: who signs in when the URL names nobody; a user of the sys tenant.
        password: None takes it from the environment variable MOVER_SOURCE_PASSWORD, else it is empty.

    ``data_dir`` is where the data directory of a server is seen here, with ``{ip}``, ``{port}`` (RPC) or ``{id}`` when
    there are several servers; without it, where each server says that it is. ``sim:///dir`` is a directory with a
    ``catalog.json`` of the cluster's tables and the data directory of server n in ``observer_<n>/store``.

    Raises ConfigError when the URL does not parse.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme not in SCHEMES or parts.fragment:
        raise ConfigError(f"not a source of observers: scheme {parts.scheme!r}", hint="oceanbase://user@host:2881/")
    if parts.scheme == "sim":
        directory = Path(unquote(parts.path))
        if parts.netloc or options or not directory.is_absolute():
            raise ConfigError("a sim source is three slashes and a directory", hint="sim:///dir")
        if not (directory / CATALOG_NAME).is_file():
            raise ConfigError(f"{directory} has no {CATALOG_NAME}: it is no simulated cluster", hint="sim:///dir")
        return ObserverCluster(Catalog(FileTables(directory / CATALOG_NAME)), data_dir=_SIM_DATA_DIR, root=directory)
    unknown = sorted(options.keys() - _OPTIONS)
    if parts.password is not None or "password" in unknown:
        # A password typed here would be in the process list and in the shell's history.
        raise ConfigError("a password does not belong into the source URL", hint=f"use {PASSWORD_VARIABLE}")
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]!r} in the oceanbase source", hint="known is: data_dir")
    try:
        host, port = parts.hostname, parts.port or _DEFAULT_PORT
    except ValueError:
        raise ConfigError("the port in the oceanbase source is not a number below 65536") from None
    if not host or parts.path not in ("", "/"):
        raise ConfigError("an oceanbase source needs a host", hint="oceanbase://root@sys@host:2881/?data_dir=/data")
    tables = SqlTables(
        user=unquote(parts.username) if parts.username else (user or _DEFAULT_USER),
        password=os.environ.get(PASSWORD_VARIABLE, "") if password is None else password,
        host=host,
        port=port,
    )
    return ObserverCluster(Catalog(tables), data_dir=options.get("data_dir"), only=(host, port))
