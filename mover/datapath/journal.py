"""The journal of a set that is being written: what each full macro file holds, for an attempt that goes on there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from mover.datapath.parts import PartFrame
from mover.datapath.processes import MacroSpace
from mover.encryption.cipher import Sealer
from mover.media.sealed import Sealing, place_of
from mover.media.written import Written, WrittenBlock
from mover.repository.placement import WrittenFile
from mover.target.base import Target


@dataclass(frozen=True, slots=True)
class Journal:
    """Notes macro files of one PG in one set. ``compression`` is the setting's label."""

    target: Target
    space: MacroSpace
    compression: str

    async def note(self, sub: int, file: WrittenFile, frames: Sequence[PartFrame]) -> None:
        """Write down a macro file that was published; offsets of ``frames`` are those in the file."""
        space = self.space
        blocks = []
        for each in frames:
            one = each.identity
            numbers = (one.block_index, one.kind, one.used_length, one.tablet_id, one.logical_version, one.data_seq)
            blocks.append(WrittenBlock(*numbers, one.payload_checksum, each.digest, each.offset, each.length))
        key = space.key
        record = Written(sub, file.size, file.digest, self.compression, key.name if key else "", tuple(blocks))
        path = space.layout.written(space.tenant_id, space.full_set, space.backup_set_id, space.pg, sub)
        sealing = Sealing(Sealer(key), place_of(path)) if key else None
        data = await asyncio.to_thread(record.encode, sealing)
        await self.target.put(path, data, if_absent=True)
