"""The lease: who may write, and the epoch that fences everybody who may no longer.

One conditional UPDATE decides, by the clock of the catalog. Names and rules as in OceanBase's backup scheduler lease:
held by one, renewed while work goes on, checked before every record that publishes.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from mover.clock import Clock
from mover.errors import OB_BACKUP_IN_PROGRESS, PreconditionError, StateError, UnreachableError
from mover.rootservice.catalog import Catalog
from mover.rootservice.catalog_clock import catalog_now_us
from mover.rootservice.catalog_tables import lease_table
from mover.target.fence import fenced


def process_start_ticks(pid: int) -> int | None:
    """When a process of this host started, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in {"Z", "X"}:
        return None
    return int(fields[19])


def this_holder() -> str:
    """``host/pid/start``: unique for the life of this process, and checkable by a later one on the same host."""
    pid = os.getpid()
    return f"{socket.gethostname()}/{pid}/{process_start_ticks(pid)}"


def holder_is_dead(holder: str) -> bool:
    """True when ``holder`` is proven to be a process of this host that is gone: no need to wait for its lease."""
    host, _, rest = holder.rpartition("/")[0].rpartition("/")
    start = holder.rpartition("/")[2]
    if host != socket.gethostname() or not rest.isdigit():
        return False
    return str(process_start_ticks(int(rest))) != start


async def is_held(connection: AsyncConnection, name: str) -> bool:
    """True when somebody who may be alive has the lease."""
    query = select(lease_table, catalog_now_us().label("now_us")).where(lease_table.c.name == name)
    return _is_alive((await connection.execute(query)).first())


def _is_alive(row: Row[Any] | None) -> bool:
    return row is not None and row.holder != "" and row.expires_us > row.now_us and not holder_is_dead(row.holder)


class Lease:
    """A named lease of one tenant's work, held while the context is open and renewed in the background.

    Args:
        name: what is leased: ``"archive:1"``, ``"backup:1"``.
        ttl: seconds after which a holder that stopped renewing may be replaced.
        floor: an epoch seen at the destination; the new epoch will be greater, also with a fresh catalog.
    """

    def __init__(self, catalog: Catalog, clock: Clock, name: str, *, ttl: float = 15.0, floor: int = 0) -> None:
        self.catalog = catalog
        self.clock = clock
        self.name = name
        self.holder = this_holder()
        self.ttl = ttl
        self.floor = floor
        self.epoch = 0
        self._deadline = 0.0  # monotonic: past it we may not write even if nobody told us
        self._renewer: asyncio.Task[None] | None = None
        self._lost: str | None = None
        self._fence = ExitStack()

    async def __aenter__(self) -> Lease:
        await self.acquire()
        # Everything that is written in here asks again before each attempt.
        self._fence.enter_context(fenced(self.check))
        self._renewer = asyncio.create_task(self._renew_for_ever(), name=f"lease {self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fence.close()
        if self._renewer is not None:
            self._renewer.cancel()
            await asyncio.gather(self._renewer, return_exceptions=True)
        try:
            await self.release()
        except UnreachableError:
            pass  # it expires by itself; what was done under it stays done

    async def acquire(self) -> int:
        """Take the lease; the epoch grows with every take-over.

        Raises PreconditionError (-9036) naming the holder when somebody alive has it.
        """
        try:
            await self._insert()
        except IntegrityError:
            pass  # the row is there: it always is, but for the first time
        began = self.clock.monotonic()
        mine = lease_table.c.name == self.name
        query = select(lease_table, catalog_now_us().label("now_us")).where(mine).with_for_update()
        async with self.catalog.begin() as connection:
            found = (await connection.execute(query)).one()
            if _is_alive(found):
                raise PreconditionError(
                    f"already running: lease {self.name} is held by {found.holder}",
                    code=OB_BACKUP_IN_PROGRESS,
                    hint=f"wait for it or stop it; a holder that died is replaced after {self.ttl:g} s",
                )
            self.epoch = max(found.epoch, self.floor) + 1
            values = {"holder": self.holder, "epoch": self.epoch, "expires_us": catalog_now_us() + self._ttl_us}
            await connection.execute(update(lease_table).where(mine).values(values))
        self._deadline = began + self.ttl
        self._lost = None
        return self.epoch

    async def _insert(self) -> None:
        # In a transaction of its own: on InnoDB those who look for a row that is missing, to lock it, lock the gap
        # together, and then none of them can insert.
        async with self.catalog.begin() as connection:
            here = select(lease_table.c.name).where(lease_table.c.name == self.name)
            if (await connection.execute(here)).first() is None:
                await connection.execute(
                    lease_table.insert().values(name=self.name, holder="", epoch=self.floor, expires_us=0)
                )

    @property
    def _ttl_us(self) -> int:
        return int(self.ttl * 1_000_000)

    async def guard(self, connection: AsyncConnection) -> None:
        """Begin a transaction as the holder: lock the lease row, or fail when it is not ours any more."""
        self.check()
        result = await connection.execute(
            update(lease_table)
            .where(lease_table.c.name == self.name)
            .where(lease_table.c.holder == self.holder)
            .where(lease_table.c.epoch == self.epoch)
            .where(lease_table.c.expires_us > catalog_now_us())
            .values(expires_us=catalog_now_us() + self._ttl_us)
        )
        if result.rowcount != 1:
            self._lost = "another coordinator took it"
            self.check()

    async def renew(self) -> None:
        """Extend the lease. Raises StateError when it was lost."""
        began = self.clock.monotonic()
        async with self.catalog.begin() as connection:
            await self.guard(connection)
        self._deadline = began + self.ttl

    def check(self) -> None:
        """Raise StateError unless the lease is surely ours right now. Call before anything that publishes."""
        if self._lost is None and self.clock.monotonic() >= self._deadline:
            self._lost = f"it was not renewed for {self.ttl:g} s"
        if self._lost is not None:
            raise StateError(
                f"lease {self.name} (epoch {self.epoch}) is lost: {self._lost}",
                hint="nothing more was published; run the command again",
            )

    async def release(self) -> None:
        """Give the lease back, keeping the epoch. Idempotent, and silent when it is already somebody else's."""
        async with self.catalog.begin() as connection:
            await connection.execute(
                update(lease_table)
                .where(lease_table.c.name == self.name)
                .where(lease_table.c.holder == self.holder)
                .where(lease_table.c.epoch == self.epoch)
                .values(holder="", expires_us=0)
            )

    async def _renew_for_ever(self) -> None:
        while True:
            await self.clock.sleep(self.ttl / 3)
            try:
                await self.renew()
            except StateError:
                return  # check() tells whoever wants to publish
            except Exception:  # noqa: S112 - the catalog may come back before the lease ends; check() decides
                continue
