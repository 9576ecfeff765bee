"""Checking what OceanBase itself wrote: no manifest vouches for it, only the formats do.

One tenant at a time, its PGs side by side. What comes out says what is damaged, and what can be restored all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mover.recovery.findings import Damage, Findings, LogReach, Read
from mover.recovery.first_error import each
from mover.recovery.foreign_blocks import PgBlocks
from mover.recovery.foreign_infos import Run, TenantInfos, load_tenant, runs_of, set_problem
from mover.recovery.foreign_log import PgWalk
from mover.recovery.foreign_plan import ForeignSet, recoverable
from mover.recovery.foreign_quick import quick_reach
from mover.recovery.foreign_set import SetContent, missing_index, partition_of, read_lists, read_set
from mover.recovery.foreign_tree import TenantTree
from mover.recovery.plan import Recoverable
from mover.target.base import Target


def _unread(_path: str, _size: int) -> None:
    """Nobody counts what is read."""


@dataclass(slots=True)
class ForeignReport:
    """What a check of one tenant found. ``sets`` and ``rounds`` are those that were checked."""

    findings: Findings = field(default_factory=Findings)
    sets: list[int] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    unpromised: set[str] = field(default_factory=set)  # files of backups and rounds that nothing promises
    recoverable: Recoverable = field(default_factory=lambda: Recoverable((), ()))


class ForeignCheck:
    """One tenant of a foreign tree.

    Args:
        target: where it is.
        tenant: its shape.
        concurrency: PGs under way at a time.
        read: told of each file that was read.
    """

    def __init__(self, target: Target, tenant: TenantTree, *, concurrency: int, read: Read = _unread) -> None:
        self._target = target
        self._tenant = tenant
        self._concurrency = concurrency
        self._read = read
        self.report = ForeignReport()

    async def windows(self) -> ForeignReport:
        """What can be restored by what is cheap to look at: names, info files, indexes, the ends of files."""
        infos = await self.load()
        sets = [await self._listed(infos, info.inc_backup_set_id) for info in infos.backups]
        stretches = []
        for run in runs_of(self._tenant, infos):
            logs: list[LogReach] = []

            async def look(pg: tuple[int, int], run: Run = run, logs: list[LogReach] = logs) -> None:
                logs.append(await quick_reach(self._target, run, pg, self._read))

            await each(run.pgs(), self._concurrency, look)
            stretches.append(run.stretch(logs))
        self.report.recoverable = recoverable(self._tenant.tenant_id, sets, stretches)
        return self.report

    async def check(self, *, set_id: int | None = None, sets: bool = True, log: bool = True) -> ForeignReport:
        """Read everything and check it.

        Args:
            set_id: only this set. sets, log: whether backup sets and archived log are wanted.
        """
        infos = await self.load()
        found = await self._sets(infos, set_id) if sets else await self._from_names(infos)
        stretches = []
        for run in runs_of(self._tenant, infos):
            logs: list[LogReach] = []

            async def walk(pg: tuple[int, int], run: Run = run, logs: list[LogReach] = logs) -> None:
                if not log:
                    logs.append(await quick_reach(self._target, run, pg, self._read))
                    return
                one = PgWalk(self._target, self._tenant.tenant_id, run.pieces, pg, read=self._read)
                logs.append(await one.run())
                self.report.findings.add(one.findings)

            await each(run.pgs(), self._concurrency, walk)
            stretches.append(run.stretch(logs))
            if log and run.round_id not in self.report.rounds:
                self.report.rounds.append(run.round_id)
        if log:
            self.report.rounds += [r.round_id for r in infos.rounds if r.round_id not in self.report.rounds]
        self.report.unpromised = set(self._unpromised(infos))
        self.report.recoverable = recoverable(self._tenant.tenant_id, found, stretches)
        return self.report

    def _unpromised(self, infos: TenantInfos) -> Iterator[str]:
        """Files of backups that run, failed or are being deleted, and of rounds that are: they may be anything."""
        finished = {i.inc_backup_set_id for i in infos.backups if i.status == 0 and not i.is_mark_deleted}
        if infos.backups:
            for found in self._tenant.sets.values():
                for number, files in found.backups.items():
                    if number not in finished:
                        yield from (file.path for file in files.values())
                for macro in found.macro.values():
                    yield from (file.path for (number, _), file in macro.files.items() if number not in finished)
                    for number, indexes in macro.indexes.items():
                        if number not in finished:
                            yield from (file.path for file in indexes.values())
        deleted = {info.round_id for info in infos.rounds if info.is_mark_deleted}
        for piece in self._tenant.pieces.values():
            if piece.round_id in deleted:
                for log in piece.pgs.values():
                    yield from (file.path for file in (*log.data.values(), *log.index.values()))

    async def load(self) -> TenantInfos:
        """The lists of the tenant; what is missing or damaged is a finding of the report."""
        infos = await load_tenant(self._target, self._tenant, self._read)
        self.report.findings.add(infos.findings)
        return infos

    async def _from_names(self, infos: TenantInfos) -> list[ForeignSet]:
        return [await self._listed(infos, info.inc_backup_set_id) for info in infos.backups]

    async def _listed(self, infos: TenantInfos, set_id: int) -> ForeignSet:
        """A set as its names and lists have it."""
        info = next(i for i in infos.backups if i.inc_backup_set_id == set_id)
        problem = set_problem(self._tenant, infos.backups, info)
        pgs: tuple[tuple[int, int], ...] = ()
        if not problem:
            found = self._tenant.find_backup(info.full_backup_set_id, set_id)
            assert found is not None, "a set without a problem has a directory"
            content, findings = await read_lists(self._target, self._tenant, found, set_id, self._read)
            pgs = tuple((pg.table_id, partition_of(pg)) for pg in content.pgs)
            problem = findings.damages[0].message if findings.damages else ""
            problem = problem or missing_index(content)
        return ForeignSet(set_id, info.backup_snapshot_version, pgs, problem)

    async def _sets(self, infos: TenantInfos, set_id: int | None) -> list[ForeignSet]:
        """Check the sets, then say which of them can be restored."""
        contents: list[SetContent] = []
        found: dict[int, ForeignSet] = {}
        for info in infos.backups:
            number = info.inc_backup_set_id
            problem = set_problem(self._tenant, infos.backups, info)
            found[number] = ForeignSet(number, info.backup_snapshot_version, (), problem)
            finished = info.status == 0 and not info.is_mark_deleted
            if finished and problem:
                self._set_damage(info.full_backup_set_id, number, problem)
            directory = self._tenant.find_backup(info.full_backup_set_id, number)
            if not finished or directory is None:
                continue
            content, findings = await read_set(self._target, self._tenant, directory, number, self._read)
            contents.append(content)
            pgs = tuple((pg.table_id, partition_of(pg)) for pg in content.pgs)
            found[number] = replace(found[number], pgs=pgs)
            if set_id in (None, number):
                self.report.sets.append(number)
                self.report.findings.add(findings)
        wanted = [c for c in contents if set_id in (None, c.number)]
        keys = sorted({(pg.table_id, partition_of(pg)) for content in wanted for pg in content.pgs})

        async def blocks(pg: tuple[int, int]) -> None:
            one = PgBlocks(self._target, self._tenant, pg, wanted, self._read, everything=set_id is None)
            await one.run()
            self.report.findings.add(one.findings)

        await each(keys, self._concurrency, blocks)
        for damage in self.report.findings.damages:
            for number in damage.where.get("sets", ()):
                if number in found and not found[number].problem:
                    found[number] = replace(found[number], problem=f"{damage.message} ({damage.path})")
        return list(found.values())

    def _set_damage(self, full_set: int, number: int, problem: str) -> None:
        path = f"{self._tenant.incarnation_dir}/{self._tenant.tenant_id}/data/tenant_data_backup_info"
        where = {"tenant_id": self._tenant.tenant_id, "sets": [number]}
        text = f"backup set {number} (full set {full_set}) is complete, but {problem}"
        self.report.findings.damages.append(Damage(path, 0, "IntegrityError", text, where))
