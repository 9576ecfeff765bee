"""The lease: who may write, and the epoch that fences everybody who may no longer.

One conditional UPDATE decides. Names and rules as in OceanBase's backup scheduler lease: held by one, renewed while
work goes on, checked before every record that publishes.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from types import TracebackType

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from mover.clock import Clock
from mover.errors import OB_BACKUP_IN_PROGRESS, PreconditionError, StateError, UnreachableError
from mover.rootservice.catalog import Catalog, lease_table


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


async def is_held(connection: AsyncConnection, name: str, now_us: int) -> bool:
    """True when somebody who may be alive has the lease."""
    found = (await connection.execute(select(lease_table).where(lease_table.c.name == name))).first()
    return found is not None and found.holder != "" and found.expires_us > now_us and not holder_is_dead(found.holder)


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

    async def __aenter__(self) -> Lease:
        await self.acquire()
        self._renewer = asyncio.create_task(self._renew_for_ever(), name=f"lease {self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            return await self._acquire()
        except IntegrityError:
            # Somebody else inserted the very first row at the same moment: now there is one to look at.
            return await self._acquire()

    async def _acquire(self) -> int:
        began = self.clock.monotonic()
        now = self.clock.now_us()
        expires = now + int(self.ttl * 1_000_000)
        async with self.catalog.begin() as connection:
            found = (
                await connection.execute(select(lease_table).where(lease_table.c.name == self.name).with_for_update())
            ).first()
            if found is None:
                self.epoch = self.floor + 1
                await connection.execute(
                    lease_table.insert().values(
                        name=self.name, holder=self.holder, epoch=self.epoch, expires_us=expires
                    )
                )
            else:
                if found.expires_us > now and found.holder != "" and not holder_is_dead(found.holder):
                    raise PreconditionError(
                        f"already running: lease {self.name} is held by {found.holder}",
                        code=OB_BACKUP_IN_PROGRESS,
                        hint=f"wait for it or stop it; a holder that died is replaced after {self.ttl:g} s",
                    )
                self.epoch = max(found.epoch, self.floor) + 1
                await connection.execute(
                    update(lease_table)
                    .where(lease_table.c.name == self.name)
                    .values(holder=self.holder, epoch=self.epoch, expires_us=expires)
                )
        self._deadline = began + self.ttl
        self._lost = None
        return self.epoch

    async def guard(self, connection: AsyncConnection) -> None:
        """Begin a transaction as the holder: lock the lease row, or fail when it is not ours any more."""
        self.check()
        now = self.clock.now_us()
        result = await connection.execute(
            update(lease_table)
            .where(lease_table.c.name == self.name)
            .where(lease_table.c.holder == self.holder)
            .where(lease_table.c.epoch == self.epoch)
            .where(lease_table.c.expires_us > now)
            .values(expires_us=now + int(self.ttl * 1_000_000))
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
