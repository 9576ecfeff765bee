"""Reading macro files back: every frame checked against the index, every block against the manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mover.errors import IntegrityError
from mover.kernel import Xxh3_128, macroblock_check, xxh3_128
from mover.media.frames import Frame, FrameReader
from mover.media.header import DataType
from mover.media.macro import parse_macro
from mover.media.manifest import ManifestFile
from mover.repository.placement import Placement
from mover.repository.sets import LoadedSet, check_digest
from mover.repository.tree import Repository

WriteBlock = Callable[[int, memoryview], None]


@dataclass(slots=True)
class MacroFileCheck:
    """One macro file on its way in. Feed it whole, front to back; not thread safe, but any thread may call it.

    Blocks of the file that the set does not point to (superseded, or only an older set's) are verified as frames and
    otherwise ignored.
    """

    path: str
    row: ManifestFile
    expected: dict[int, Placement]  # by frame offset
    seen: int = 0
    size: int = 0
    reader: FrameReader = field(default_factory=lambda: FrameReader(DataType.MACRO_DATA))
    digest: Xxh3_128 = field(default_factory=Xxh3_128)

    def feed(self, piece: bytes, write: WriteBlock | None = None) -> int:
        """Verify a piece; give finished blocks of the set to ``write``. Returns how many. Raises IntegrityError."""
        self.digest.update(piece)
        self.size += len(piece)
        done = 0
        for frame in self.reader.feed(piece):
            done += self._block(frame, write)
        self.seen += done
        return done

    def finish(self) -> None:
        """The file is over: digest, size, end mark, and no block missing. Raises IntegrityError."""
        check_digest(self.row, self.path, self.size, self.digest.digest())
        self.reader.finish()
        if self.seen != len(self.expected):
            missing = len(self.expected) - self.seen
            raise IntegrityError(f"{self.path}: {missing} blocks that the index names are not in it", path=self.path)

    def _block(self, frame: Frame, write: WriteBlock | None) -> int:
        macro = parse_macro(frame.data(), offset=frame.payload_offset)
        meta = macro.block_meta()
        placement = self.expected.get(frame.offset)
        if placement is None:
            return 0
        identity = placement.identity
        if frame.size != placement.length or (meta.block_index, meta.kind, meta.used_length) != (
            identity.block_index,
            identity.kind,
            identity.used_length,
        ):
            raise IntegrityError(
                f"{self.path}: the frame at offset {frame.offset} holds block {meta.block_index},"
                f" the index says block {identity.block_index}",
                path=self.path,
                offset=frame.offset,
            )
        if xxh3_128(macro.block) != placement.digest:
            raise IntegrityError(
                f"{self.path}: block {identity.block_index} at offset {frame.offset} does not match its digest",
                path=self.path,
                offset=frame.offset,
            )
        if identity.immutable and not (checked := macroblock_check(macro.block)).ok:
            raise IntegrityError(
                f"{self.path}: block {identity.block_index} at offset {frame.offset}: {checked.reason}",
                path=self.path,
                offset=frame.offset,
            )
        if write is not None:
            write(identity.block_index, macro.block)
        return 1


def plan_macro_files(repository: Repository, loaded: LoadedSet) -> list[MacroFileCheck]:
    """One check per macro file the set points into. Raises IntegrityError when the manifest lacks one."""
    layout, facts = repository.layout, loaded.facts
    rows = {file.path: file for file in loaded.files}
    checks: dict[str, MacroFileCheck] = {}
    for placement in loaded.placements:
        path = layout.macro_block(
            facts.tenant_id, facts.full_backup_set_id, facts.pg, placement.backup_set_id, placement.sub_task_id
        )
        check = checks.get(path)
        if check is None:
            row = rows.get(layout.relative(path))
            if row is None:
                raise IntegrityError(f"{path}: the index points into it, but the manifest lacks it", path=path)
            check = checks[path] = MacroFileCheck(path, row, {})
        if placement.offset in check.expected:
            raise IntegrityError(f"{path}: two blocks at offset {placement.offset}", path=path, offset=placement.offset)
        check.expected[placement.offset] = placement
    return list(checks.values())
