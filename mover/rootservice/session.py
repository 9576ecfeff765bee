"""One source, one destination and one catalog, open together for the length of a command."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mover.clock import Clock, SystemClock
from mover.config import Settings
from mover.encryption.cipher import NO_KEYS, Keys
from mover.encryption.given import key_sources
from mover.errors import ConfigError
from mover.events import Emit, ignore
from mover.media.layout import SYS_TENANT_ID, Layout
from mover.repository.keys import load_keys
from mover.repository.tree import Repository
from mover.rootservice.state import catalog_url, join_pace
from mover.store.base import Store
from mover.store.cluster import Cluster
from mover.target.pacing import PacedTarget, SharedPace
from mover.target.url import open_target

# SQLAlchemy takes as long to import as all of mover: what reads a destination does without.
if TYPE_CHECKING:
    from mover.rootservice.catalog import Catalog
    from mover.rootservice.lease import Lease

# A capture keeps what it reads inside its window beside the pool that --memory sizes: that share of it.
_SPOOL_SHARE = 8


@dataclass(slots=True)
class Session:
    """What every verb of the coordinator works on. Made by :func:`open_session`."""

    settings: Settings
    repository: Repository
    maybe_catalog: Catalog | None
    clock: Clock
    emit: Emit
    maybe_store: Store | None
    maybe_cluster: Cluster | None = None  # a source of many PGs; then there is no store

    @property
    def store(self) -> Store:
        """The source. Raises ConfigError when none was given, or it is a cluster."""
        if self.maybe_store is None and self.maybe_cluster is not None:
            raise ConfigError("this needs a seekdb source", hint="clusters of observers are archived and backed up")
        if self.maybe_store is None:
            raise ConfigError("no source was given", hint="name the store with --source seekdb:///base/dir")
        return self.maybe_store

    @property
    def catalog(self) -> Catalog:
        """The catalog. The session must have been opened with it."""
        assert self.maybe_catalog is not None, "a session without a catalog"
        return self.maybe_catalog

    def use_keys(self, keys: Keys) -> None:
        """Decrypt, and encrypt, with these from now on."""
        self.repository = dataclasses.replace(self.repository, keys=keys)

    def lease(self, work: str, *, floor: int = 0) -> Lease:
        """The lease of one kind of work ("archive", "backup") on this tenant."""
        from mover.rootservice.lease import Lease

        name = f"{work}:{self.repository.tenant_id}"
        return Lease(self.catalog, self.clock, name, ttl=self.settings.lease_ttl, floor=floor)


@asynccontextmanager
async def open_catalog(settings: Settings) -> AsyncIterator[Catalog]:
    """The catalog that belongs to the destination and cluster of ``settings``; the destination is not touched.

    Raises ConfigError and UnreachableError.
    """
    from mover.rootservice.catalog import Catalog

    catalog = await Catalog.open(catalog_url(settings))
    try:
        yield catalog
    finally:
        await catalog.aclose()


def open_cluster(settings: Settings, source: str) -> Cluster | None:
    """The cluster at the URL ``source``, None when it is a single store's. Raises ConfigError. Close it."""
    if source.partition(":")[0] not in {"oceanbase", "sim"}:
        return None
    # Importing it costs start-up time that seekdb and listings need not pay.
    from mover.store.observer.source import open_observer

    return open_observer(source, password=settings.source_password)


def open_store(settings: Settings, source: str) -> Store:
    """The store at the URL ``source``; nothing is connected yet. Raises ConfigError. Close it."""
    # Importing it costs start-up time that listings need not pay.
    from mover.store.seekdb.store import open_seekdb

    return open_seekdb(
        source,
        user=settings.source_user,
        password=settings.source_password,
        offline=settings.offline,
        cluster_name=settings.cluster_name,
        cluster_id=settings.cluster_id,
        scratch=settings.scratch_dir,
        spool_memory=settings.memory // _SPOOL_SHARE,
    )


@asynccontextmanager
async def open_session(
    settings: Settings,
    *,
    need_source: bool,
    need_catalog: bool = True,
    create: bool = False,
    need_keys: bool = True,
    archiving: bool = False,
    emit: Emit = ignore,
    clock: Clock | None = None,
) -> AsyncIterator[Session]:
    """Open destination and, as needed, store and catalog; close them in reverse order.

    Args:
        need_source: the store must be given.
        need_catalog: leases or the views of jobs are used; without it a session is open in half the time.
        create: make the directory of a ``file://`` destination when it is missing: for a first round only. Later a
            directory that is not there belongs to a file system that is not mounted.
        need_keys: what is encrypted may be read; without, no secret is used and no key service is asked.
        archiving: what this session moves goes before what others move, where the destination's use is limited.

    Raises ConfigError for what is missing or malformed, UnreachableError for what does not answer.
    """
    if settings.dest is None:
        raise ConfigError("no destination was given", hint="name it with --dest file:///dir or s3://bucket/prefix")
    if need_source and settings.source is None:
        raise ConfigError("no source was given", hint="name the store with --source seekdb:///base/dir")
    async with AsyncExitStack() as stack:
        pace = _pace(settings, needed=need_catalog)
        if pace is not None:
            stack.callback(pace.close)
        target = await open_target(
            settings.dest,
            create=create,
            concurrency=settings.concurrency,
            objects=settings.objects,
            retry_for=settings.retry_for,
            file_timeout=settings.file_timeout,
        )
        stack.push_async_callback(target.aclose)
        if pace is not None:
            target = PacedTarget(target, pace, first=archiving, clock=clock)
        store: Store | None = None
        cluster: Cluster | None = None
        if need_source and settings.source is not None:
            cluster = open_cluster(settings, settings.source)
            if cluster is not None:
                stack.push_async_callback(cluster.aclose)
                await require_name(cluster, settings)
            else:
                store = open_store(settings, settings.source)
                stack.push_async_callback(store.aclose)
        catalog = await stack.enter_async_context(open_catalog(settings)) if need_catalog else None
        layout = Layout(settings.cluster_name, settings.cluster_id)
        tenant_id = SYS_TENANT_ID if store is None else (await store.identity()).tenant_id
        repository = Repository(target, layout, tenant_id)
        keys = await load_keys(repository, key_sources(settings)) if need_keys else NO_KEYS
        yield Session(
            settings=settings,
            repository=dataclasses.replace(repository, keys=keys),
            maybe_catalog=catalog,
            clock=clock or SystemClock(),
            emit=emit,
            maybe_store=store,
            maybe_cluster=cluster,
        )


async def require_name(cluster: Cluster, settings: Settings) -> None:
    """The tree at the destination must have the name that the cluster has. Raises ConfigError."""
    if settings.encrypt != "none":
        raise ConfigError(
            "backups of a cluster are not encrypted: their tree is as OceanBase writes it",
            hint="leave out encrypt; object stores can encrypt by themselves (sse)",
        )
    identity = await cluster.identity()
    if (identity.cluster_name, identity.cluster_id) != (settings.cluster_name, settings.cluster_id):
        raise ConfigError(
            f"the source is cluster {identity.cluster_name!r} with id {identity.cluster_id}, the settings name"
            f" {settings.cluster_name!r} with id {settings.cluster_id}",
            hint=f"say --cluster-name {identity.cluster_name} --cluster-id {identity.cluster_id}, here and in commands"
            " that only read the destination",
        )


def _pace(settings: Settings, *, needed: bool) -> SharedPace | None:
    """The limits; None where nothing is limited and whoever only reads has no state directory."""
    try:
        return join_pace(settings)
    except ConfigError:
        if needed or settings.rate_limit or settings.request_limit:
            raise
        return None
