"""What lists and indexes of a foreign tree promise and is not there: a copy alone reads only what there is."""

from __future__ import annotations

from mover.errors import IntegrityError, TargetNotFound
from mover.recovery.copy_plan import Selection, complete_sets
from mover.recovery.findings import Damage
from mover.recovery.first_error import each
from mover.recovery.foreign_blocks import read_macro_index
from mover.recovery.foreign_infos import Run, TenantInfos, runs_of, set_problem
from mover.recovery.foreign_log import FIRST_FILE, read_index
from mover.recovery.foreign_set import SetContent, missing_index, read_lists
from mover.recovery.foreign_tree import MacroDir, TenantTree, in_order
from mover.target.base import Target


def _unread(_path: str, _size: int) -> None:
    """Nobody counts what is read."""


class MissingFiles:
    """One tenant. Reads its PG lists, macro indexes and, where a number is missing, index records; nothing larger."""

    def __init__(self, target: Target, tenant: TenantTree, infos: TenantInfos, *, concurrency: int) -> None:
        self._target = target
        self._tenant = tenant
        self._infos = infos
        self._concurrency = concurrency
        self._found: list[Damage] = []
        self._sizes = {
            file.path: file.size for s in tenant.sets.values() for m in s.macro.values() for file in m.files.values()
        }

    async def find(self, selection: Selection) -> list[Damage]:
        """What is missing of the chosen sets and, when it is chosen, of the log."""
        work: list[tuple[SetContent, MacroDir]] = []
        chosen = complete_sets(self._infos.backups, selection)
        for info in self._infos.backups:
            number = info.inc_backup_set_id
            if number not in chosen:
                continue
            where = {"tenant_id": self._tenant.tenant_id, "sets": [number]}
            problem = set_problem(self._tenant, self._infos.backups, info)
            directory = self._tenant.find_backup(info.full_backup_set_id, number)
            if not problem and directory is not None:
                content, findings = await read_lists(self._target, self._tenant, directory, number, _unread)
                self._found += findings.damages
                problem = missing_index(content)
                work += [(content, macro) for macro in directory.macro.values() if number in macro.indexes]
            if problem:
                path = f"{self._tenant.incarnation_dir}/{self._tenant.tenant_id}/data/tenant_data_backup_info"
                text = f"backup set {number} is complete, but {problem}"
                self._found.append(Damage(path, 0, "IntegrityError", text, dict(where)))
        await each(work, self._concurrency, self._index)
        if selection.has_log:
            for run in runs_of(self._tenant, self._infos):
                await self._log(run)
        return self._found

    async def _index(self, work: tuple[SetContent, MacroDir]) -> None:
        content, macro = work
        name = f"{macro.path}/macro_block_index_{content.number}"
        where = {"tenant_id": self._tenant.tenant_id, "sets": [content.number], "pg": f"{macro.pg[0]}/{macro.pg[1]}"}
        try:
            async for block in read_macro_index(
                self._target, self._tenant, content, macro, _unread, lambda *_arguments: None
            ):
                end = block.entry.offset + block.entry.data_length
                size = self._sizes.get(block.path)
                if size is None or size < end:
                    have = "is missing" if size is None else f"has {size} bytes"
                    text = f"{name}: names a block that ends at {end} of {block.path}, which {have}"
                    self._found.append(Damage(name, 0, "IntegrityError", text, where))
                    return
        except (IntegrityError, TargetNotFound) as exc:
            self._found.append(Damage.of(exc, name, **where))

    async def _log(self, run: Run) -> None:
        where = {"tenant_id": self._tenant.tenant_id, "round": run.round_id}
        for piece in run.pieces:
            for log in piece.pgs.values():
                gaps = [(low, high) for low, high, there in in_order(log.data, FIRST_FILE) if not there]
                if not gaps:
                    continue
                index = await read_index(self._target, log, _unread)
                useless = {number for number, (record, _) in index.records.items() if not record.is_valid}
                for low, high in gaps:
                    lost = next(
                        (number for number in range(low, min(high, low + 4096) + 1) if number not in useless), 0
                    )
                    if lost:
                        path = f"{log.directory}/{lost}"
                        text = f"{path} is missing at the source"
                        self._found.append(Damage(path, 0, "TargetNotFound", text, {**where, "pg": log.pg_name}))
