"""A cluster of 3.1 observers as a :class:`mover.store.cluster.Cluster`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mover.errors import SourceError
from mover.kernel import xxh3_128
from mover.media.layout import SYS_TENANT_ID
from mover.media.pg import PGKey
from mover.store.cluster import ClusterIdentity, ClusterServer, ClusterTenant, PGPlace
from mover.store.observer.capture import ObserverCapture
from mover.store.observer.catalog import Catalog, Replica
from mover.store.observer.cluster_log import ObserverLog

_NAMED = 3  # PGs that an error lists


class ObserverCluster:
    """An opened cluster; nothing is connected before it is asked for something.

    Args:
        catalog: its tables.
        data_dir: where the data directory (``sstable/``, ``clog/``, ``ilog/`` below it) of a server is mounted here,
            with ``{ip}``, ``{port}`` (RPC) or ``{id}`` in it when there are several; None takes what each server says.
        root: what a relative data directory is relative to; None refuses one.
        only: SQL address of the one server whose files ``data_dir`` has.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        data_dir: str | None,
        root: Path | None = None,
        only: tuple[str, int] | None = None,
    ) -> None:
        self.catalog = catalog
        self._data_dir = data_dir
        self._root = root
        self._only = only
        self._directories: dict[ClusterServer, Path] | None = None

    async def identity(self) -> ClusterIdentity:
        """See :class:`mover.store.cluster.Cluster`."""
        return await self.catalog.identity()

    async def tenants(self) -> Sequence[ClusterTenant]:
        """See :class:`mover.store.cluster.Cluster`."""
        return [tenant for tenant in await self.catalog.tenants() if tenant.tenant_id != SYS_TENANT_ID]

    async def servers(self) -> Sequence[ClusterServer]:
        """See :class:`mover.store.cluster.Cluster`."""
        return list(await self.directories())

    async def directories(self) -> Mapping[ClusterServer, Path]:
        """The data directory of each server whose files can be read here. Raises SourceError when there is none."""
        if self._directories is None:
            self._directories = await self._find_directories()
        return self._directories

    async def _find_directories(self) -> dict[ClusterServer, Path]:
        servers = await self.catalog.servers()
        told = await self.catalog.data_dirs() if self._data_dir is None else {}
        found: dict[ClusterServer, Path] = {}
        tried: list[str] = []
        for server, sql_port in servers:
            if self._data_dir is None:
                text = told.get((server.ip, server.port), "")
            else:
                text = self._data_dir.replace("{ip}", server.ip).replace("{port}", str(server.port))
                text = text.replace("{id}", str(server.server_id))
                # One directory can be one server's only: that of the server which was asked.
                shared = self._only is not None and text == self._data_dir and len(servers) > 1
                if shared and self._only not in {(server.ip, sql_port), (server.ip, server.port)}:
                    continue
            if not text or (self._root is None and not text.startswith("/")):
                continue
            directory = (self._root or Path("/")) / text
            tried.append(str(directory))
            if (directory / "clog").is_dir():
                found[server] = directory
        if not found:
            where = f": looked at {', '.join(tried)}" if tried else ""
            raise SourceError(
                f"no data directory of {self.catalog.tables.name} can be read here{where}",
                hint="mover runs where the files of the observers are; name their place with data_dir= in the source",
            )
        return found

    async def places(self, prefer: Mapping[tuple[int, int], str] | None = None) -> Sequence[PGPlace]:
        """See :class:`mover.store.cluster.Cluster`."""
        directories = await self.directories()
        servers = {(server.ip, server.port): server for server in directories}
        replicas: dict[PGKey, list[Replica]] = defaultdict(list)
        for replica in await self.catalog.replicas():
            if replica.pg.tenant_id != SYS_TENANT_ID:
                replicas[replica.pg].append(replica)
        partitions = {address: await self.catalog.partitions(address) for address in servers}
        places, lost = [], []
        for pg in sorted(replicas):
            usable = [replica for replica in replicas[pg] if replica.usable and replica.server in servers]
            if not usable:
                lost.append(pg)
                continue
            # A follower: the leader has the load. Which one goes by the PG, so that servers share the work, and stays
            # the same while it can: blocks differ between replicas, and an incremental reuses those of one.
            spare = [found for found in usable if not found.leader] or usable
            known = (prefer or {}).get((pg.table_id, pg.partition_id))
            kept = [found for found in usable if str(servers[found.server]) == known]
            chosen = kept[0] if kept else max(spare, key=lambda found: xxh3_128(f"{found.server} {pg}".encode()))
            inside = partitions[chosen.server].get((pg.table_id, pg.partition_id), [])
            places.append(
                PGPlace(
                    pg,
                    servers[chosen.server],
                    chosen.leader,
                    tuple(sorted(inside)) or ((pg.table_id, pg.partition_id),),
                )
            )
        if lost:
            names = ", ".join(map(str, lost[:_NAMED])) + (" ..." if len(lost) > _NAMED else "")
            raise SourceError(
                f"{len(lost)} PGs have no usable replica on a server whose files can be read here: {names}",
                hint="mount the data directories of more servers, or wait until replicas are in sync",
            )
        return places

    async def frozen(self) -> Sequence[tuple[int, int, int]]:
        """See :class:`mover.store.cluster.Cluster`."""
        return await self.catalog.freezes()

    async def capture(self, place: PGPlace) -> ObserverCapture:
        """See :class:`mover.store.cluster.Cluster`."""
        directory = (await self.directories())[place.server]
        return ObserverCapture(self.catalog, place, directory / "sstable" / "block_file")

    async def log(self) -> ObserverLog:
        """See :class:`mover.store.cluster.Cluster`."""
        return ObserverLog(self.catalog, await self.directories())

    async def aclose(self) -> None:
        """Close the connection. Logs and captures are closed by whoever opened them."""
        await self.catalog.aclose()
