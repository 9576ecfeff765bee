"""What doctor tries at a cluster: its catalog, a readable replica of every PG, and how old the log is that it keeps."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from mover.clock import iso_from_us
from mover.config import Settings
from mover.errors import MoverError
from mover.media.archive_info import ArchiveStatus, current_round
from mover.media.layout import SYS_TENANT_ID, Layout
from mover.repository.archive_state import load_cluster_record, load_rounds
from mover.repository.tree import Repository
from mover.rootservice.doctor_checks import Check, State, failed, no_round
from mover.rootservice.session import require_name
from mover.store.cluster import Cluster
from mover.target.base import Target


class ClusterExam:
    """The checks of one cluster."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._oldest_us = 0

    async def checks(self) -> AsyncIterator[Check]:
        """In order; the first that fails is the last."""
        name = "reach"
        try:
            identity = await self._cluster.identity()
            detail = f"{identity.kind} {identity.version}, cluster {identity.cluster_name!r} ({identity.cluster_id})"
            yield Check("source", name, State.OK, detail)
            name = "settings"
            await require_name(self._cluster, self._settings)
            name = "tenants"
            tenants = await self._cluster.tenants()
            if not tenants:
                advice = "there is nothing to archive; is this user one of the sys tenant?"
                yield Check("source", name, State.FAIL, "no tenant but sys", advice)
                return
            yield Check("source", name, State.OK, ", ".join(tenant.name for tenant in tenants))
            name = "replicas"
            places, servers = await self._cluster.places(), await self._cluster.servers()
            found = f"{len(places)} PGs, each with files on {', '.join(map(str, servers))}"
            yield Check("source", name, State.OK, found)
            name = "log"
            log = await self._cluster.log()
            try:
                for place in places:
                    await log.start_of(place)
                self._oldest_us = await log.oldest_us()
            finally:
                await log.aclose()
            since = f"from {iso_from_us(self._oldest_us)} on" if self._oldest_us else "none yet"
            yield Check("source", name, State.OK, f"every PG's can be read, {since}")
        except MoverError as error:
            yield failed("source", name, error)

    async def against(self, target: Target, settings: Settings) -> AsyncIterator[Check]:
        """Is there a round to archive into, and does it go as far back as the log that the servers keep?"""
        try:
            repository = Repository(target, Layout(settings.cluster_name, settings.cluster_id), SYS_TENANT_ID)
            current = current_round(await load_rounds(repository))
            record = await load_cluster_record(repository, current.round_id) if current else None
            if current is None or current.status != ArchiveStatus.DOING or record is None:
                yield no_round()
                return
            behind = max(0, time.time() - record.caught_up_us / 1e6)
            detail = f"all log up to {behind:.0f} s ago is durable"
            if not record.caught_up_us:
                advice = "keep `mover archivelog run` going: the round has begun, and nothing is archived"
                yield Check("destination", "archive", State.WARN, "nothing is durable yet", advice)
            elif record.caught_up_us < self._oldest_us:
                advice = "log may have been recycled before it was archived: run `mover archivelog run` without a pause"
                yield Check("destination", "archive", State.FAIL, f"{detail}, and the servers keep less", advice)
            else:
                yield Check("destination", "archive", State.OK, detail)
        except MoverError as error:
            yield failed("destination", "archive", error)
