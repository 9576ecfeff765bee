"""Files of attempts that failed: cut off, and named by nothing that was finished."""

from __future__ import annotations

from mover.errors import IntegrityError, MoverError
from mover.media.layout import FileKind
from mover.recovery.foreign_blocks import read_macro_index
from mover.recovery.foreign_set import SetContent, is_cut
from mover.recovery.foreign_tree import BackupTree, TreeFile
from mover.target.base import Target


async def is_leftover(target: Target, tree: BackupTree, file: TreeFile, error: MoverError) -> bool:
    """Whether a file that does not hold is what a task left that was tried again under another name.

    Such a macro file only ends too early, and no index beside it points into it; such an index is followed by one with
    the next retry number, such a meta index by one of a later task.
    """
    place = file.place
    tenant = tree.tenants.get((place.incarnation_dir, place.tenant_id or 0))
    if tenant is None or tenant.by_mover or not is_cut(error):
        return False
    directory = file.path.rpartition("/")[0]
    if place.kind is FileKind.META_INDEX_FILE:
        beside = next((s.backups for s in tenant.sets.values() if file.path.startswith(s.path + "/")), {})
        tasks = [
            f.place.task_id or 0 for files in beside.values() for f in files.values() if f.place.kind is place.kind
        ]
        return (place.task_id or 0) < max(tasks)
    for found in tenant.sets.values():
        macro = found.macro.get(directory)
        if macro is None:
            continue
        if place.kind is FileKind.MACRO_BLOCK_INDEX:
            return (place.retry or 0) < max(macro.indexes.get(place.inc_set or 0, {}), default=0)
        if place.kind is FileKind.MACRO_BLOCK:
            try:
                for other in tenant.sets.values():
                    for beside_it in other.macro.values():
                        for number in beside_it.indexes if beside_it.pg == macro.pg else ():
                            content = SetContent(number, other)
                            async for block in read_macro_index(
                                target, tenant, content, beside_it, lambda _path, _size: None, lambda *_: None
                            ):
                                if block.path == file.path:
                                    return False
            except IntegrityError:
                return False
            return True
    return False
