"""The info files of a copy: lists of the source, less what was not copied, and what earlier copies listed there.

Pure, and on the bytes of the elements: members that a later OceanBase appended stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from mover.errors import PreconditionError
from mover.media.archive_info import decode_archive_rounds
from mover.media.backup_info import decode_backup_infos
from mover.media.header import DataType
from mover.media.opaque import header_of, join_elements, split_elements
from mover.media.piece_info import decode_piece_infos
from mover.media.set_info import decode_set_infos

Decode = Callable[[bytes], Sequence[Any]]
_KEYS: dict[int, tuple[Decode, Callable[[Any], Any], Callable[[Any], Any]]] = {
    # How to decode the list, what an element is known by, and what two elements of one thing must share.
    DataType.BACKUP_INFO: (
        lambda data: decode_backup_infos(data, strict=False),
        lambda info: info.inc_backup_set_id,
        lambda info: (info.full_backup_set_id, info.backup_snapshot_version),
    ),
    DataType.BACKUP_SET_INFO: (
        lambda data: decode_set_infos(data, strict=False),
        lambda info: info.backup_set_id,
        lambda info: info.backup_snapshot_version,
    ),
    DataType.LOG_ARCHIVE_BACKUP_INFO: (
        lambda data: decode_archive_rounds(data, strict=False),
        lambda info: info.round_id,
        lambda info: info.tenant_id,
    ),
    DataType.PIECE_INFO: (
        lambda data: decode_piece_infos(data, strict=False),
        lambda info: (info.round_id, info.backup_piece_id),
        lambda info: info.create_date,
    ),
}


def merge_list(
    path: str, source: bytes, there: bytes | None, data_type: int, wanted: Iterable[Hashable] | None
) -> bytes | None:
    """The list to publish: the wanted elements of the source and, of what is there, those it does not have.

    Args:
        path: for the error.
        wanted: keys of elements (backup numbers, round numbers, (round, piece)); None for all.

    Returns None when nothing is left to list. Raises PreconditionError when the destination lists another thing under
    the same number, IntegrityError for a list that does not decode.
    """
    decode, key, identity = _KEYS[data_type]
    own = list(zip(decode(source), split_elements(source, data_type), strict=True))
    keys = None if wanted is None else set(wanted)
    chosen = {key(item): (item, element.data) for item, element in own if keys is None or key(item) in keys}
    if there is not None:
        for item, element in zip(decode(there), split_elements(there, data_type), strict=True):
            ours = chosen.setdefault(key(item), (item, element.data))
            if identity(ours[0]) != identity(item):
                raise PreconditionError(
                    f"{path}: the destination lists another {key(item)} than the source",
                    hint="it holds another cluster's backups: choose an empty place for the copy",
                    path=path,
                )
    if not chosen:
        return None
    return join_elements([data for _, (_, data) in sorted(chosen.items())], header_of(source))
