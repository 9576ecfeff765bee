"""Macro files of a set: every frame checked against the index, every block and file against the manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mover.errors import FormatError, IntegrityError
from mover.kernel import (
    UNPACK_HEAD,
    UNPACK_SLAB,
    Expected,
    Verdict,
    Xxh3_128,
    macroblock_check,
    unpack_frames,
    xxh3_128,
)
from mover.media.frames import FRAME_ALIGN, FrameReader, padding, read_frame
from mover.media.header import DataType
from mover.media.layout import FileKind, parse_path
from mover.media.macro import MACRO_SUFFIX, PREFIX_OPEN, BlockMeta, macro_prefix, parse_macro
from mover.media.manifest import ManifestFile
from mover.media.sealed import Opening
from mover.recovery.ranges import Range, RangePlan, plan_ranges
from mover.repository.placement import Placement
from mover.repository.sets import LoadedSet, check_digest
from mover.repository.tree import Repository, name_file
from mover.store.base import MACRO_BLOCK_SIZE

WriteBlock = Callable[[int, memoryview], None]
_GAP_PIECE = 256 << 10  # a frame reader copies what it is fed


@dataclass(frozen=True, slots=True)
class MacroFile:
    """A macro file that a set points into."""

    path: str
    row: ManifestFile
    expected: dict[int, Placement]  # by frame offset
    opening: Opening | None = None  # what decrypts it; None when it is not encrypted

    def plan(self, limit: int, *, everything: bool = False) -> RangePlan:
        """What to read of it, in ranges of at most ``limit`` bytes; see :func:`plan_ranges`.

        Raises IntegrityError when the index names frames that cannot be: nobody reads or allocates what it only claims.
        """
        frames = sorted(self.expected.values(), key=lambda frame: frame.offset)
        end = 0
        for frame in frames:
            if (
                frame.offset < end
                or frame.offset % FRAME_ALIGN
                or frame.length % FRAME_ALIGN
                or not 0 < frame.length <= min(limit, UNPACK_SLAB)
                or frame.identity.used_length > MACRO_BLOCK_SIZE
            ):
                raise self._impossible(frame, f"and another frame ends at {end}" if frame.offset < end else "")
            end = frame.offset + frame.length
            if end > self.row.size:
                raise self._impossible(frame, f"and the file has {self.row.size} bytes")
        return plan_ranges(self.row.size, frames, limit, everything=everything)

    def _impossible(self, frame: Placement, besides: str) -> IntegrityError:
        text = f"the index says that block {frame.identity.block_index} is in {frame.length} bytes at {frame.offset}"
        return IntegrityError(
            f"{self.path}: {' '.join(filter(None, (text, besides or 'which no frame can be')))}",
            path=self.path,
            offset=frame.offset,
        )


class MacroCheck:
    """One macro file on its way in, range by range as it was planned.

    :meth:`blocks` takes ranges in any order and several at a time, in threads. :meth:`in_order` takes those of a whole
    file front to back, one at a time. Both raise IntegrityError naming file, offset and block.
    """

    def __init__(self, file: MacroFile, *, whole: bool) -> None:
        self._open = None if file.opening is None or not file.opening.keys else file.opening
        self._file = file
        self._whole = whole
        self._digest = Xxh3_128()
        self._size = 0
        self._gap: FrameReader | None = None

    def blocks(self, part: Range, data: memoryview, slabs: memoryview, write: WriteBlock | None = None) -> int:
        """Verify the frames of a range, and give their blocks to ``write``; how many there are.

        Args:
            data: the bytes of the range; of an encrypted file writable, and decrypted where they are.
            slabs: writable, page aligned, at least one slab of the kernel.
            write: given the block index, and the block with zeros up to a whole page, in page-aligned memory that is
                used again when it returns. May be called for a block again, with the same content.
        """
        batch = len(slabs) // UNPACK_SLAB
        for first in range(0, len(part.frames), batch):
            frames = part.frames[first : first + batch]
            if self._open is not None:
                frames = tuple(self._decrypted(frame, part.start, data) for frame in frames)
            verdicts = unpack_frames(
                data,
                [_expected(frame, part.start) for frame in frames],
                slabs,
                MACRO_SUFFIX,
                open_from=PREFIX_OPEN[0],
                open_until=PREFIX_OPEN[1],
                keep=write is not None,
            )
            for number, frame in enumerate(frames):
                if verdicts[number] != Verdict.GOOD:
                    at = frame.offset - part.start
                    raise reason(self._file.path, frame, data[at : at + frame.length], Verdict(verdicts[number]))
                if write is not None:
                    used, start = frame.identity.used_length, number * UNPACK_SLAB + UNPACK_HEAD
                    write(frame.identity.block_index, slabs[start : start + used + padding(used)])
        return len(part.frames)

    def _decrypted(self, frame: Placement, base: int, data: memoryview) -> Placement:
        """The frame as it is in ``data`` after it was decrypted there."""
        assert self._open is not None
        at = frame.offset - base
        try:
            length = self._open.in_place(data[at : at + frame.length], frame.offset)
        except IntegrityError as exc:
            raise name_file(exc, self._file.path) from None
        return replace(frame, length=length)

    def in_order(self, part: Range, data: memoryview) -> None:
        """Take a range into the digest of the file, and verify what the index does not name as frames.

        Those are blocks that were superseded, or are only an older set's, and the end mark.
        """
        self._digest.update(data)
        self._size += len(data)
        try:
            if part.frames:
                self._close_gap(part.start)
                return
            if self._gap is None:
                self._gap = FrameReader(DataType.MACRO_DATA, base_offset=part.start, opening=self._file.opening)
            for start in range(0, len(data), _GAP_PIECE):
                for frame in self._gap.feed(data[start : start + _GAP_PIECE]):
                    if frame.header.sealed and self._open is None:
                        continue  # without its key
                    parse_macro(frame.data(), offset=frame.payload_offset).block_meta()
        except IntegrityError as exc:
            raise name_file(exc, self._file.path) from None

    def finish(self) -> None:
        """Every range was taken: of a whole file, digest, size and end mark."""
        if not self._whole:
            return
        check_digest(self._file.row, self._file.path, self._size, self._digest.digest())
        try:
            (self._gap or FrameReader(base_offset=self._size)).finish()
        except IntegrityError as exc:
            raise name_file(exc, self._file.path) from None

    def _close_gap(self, start: int) -> None:
        gap, self._gap = self._gap, None
        if gap is not None and (gap.ended or gap.offset != start):
            raise FormatError(
                f"what is at offset {gap.offset} does not end where the index has a block, at {start}",
                offset=gap.offset,
            )


def _expected(frame: Placement, base: int) -> Expected:
    identity = frame.identity
    meta = BlockMeta(identity.block_index, identity.kind, identity.used_length)
    prefix = macro_prefix(meta.pack(), identity.used_length)
    return Expected(frame.offset - base, frame.length, prefix, identity.used_length, frame.digest, identity.immutable)


def reason(path: str, placement: Placement, data: memoryview, verdict: Verdict) -> IntegrityError:
    """Why the kernel refuses a frame, in the words of the definition of the format.

    Args:
        placement: what the index and the manifest say. data: the bytes that are there.
    """
    identity, offset = placement.identity, placement.offset

    def wrong(text: str) -> IntegrityError:
        return IntegrityError(f"{path}: {text}", path=path, offset=offset)

    block = f"block {identity.block_index} at offset {offset}"
    try:
        frame = read_frame(data, offset=offset, data_type=DataType.MACRO_DATA)
        macro = parse_macro(frame.data(), offset=frame.payload_offset)
        meta = macro.block_meta()
    except IntegrityError as exc:
        exc.where.setdefault("offset", offset)
        return name_file(exc, path)
    if (meta.block_index, meta.kind, meta.used_length) != (identity.block_index, identity.kind, identity.used_length):
        return wrong(
            f"the frame at offset {offset} holds block {meta.block_index}, the index says block {identity.block_index}"
        )
    if xxh3_128(macro.block) != placement.digest:
        return wrong(f"{block} does not match its digest")
    if identity.immutable and not (checked := macroblock_check(macro.block)).ok:
        return wrong(f"{block}: {checked.reason}")
    return wrong(f"{block} is refused ({verdict.name.lower()})")


def plan_macro_files(repository: Repository, loaded: LoadedSet) -> list[MacroFile]:
    """The macro files that the set points into. Raises IntegrityError when the manifest lacks one."""
    layout, facts = repository.layout, loaded.facts
    rows = {file.path: file for file in loaded.files}
    files: dict[str, MacroFile] = {}
    if facts.key_id and not repository.keys:
        # Without the key nobody knows what is where: the files of the set, as bytes.
        for file_row in loaded.files:
            path = layout.absolute(file_row.path)
            parsed = parse_path(path)
            if parsed is not None and parsed.kind is FileKind.MACRO_BLOCK:
                files[path] = MacroFile(path, file_row, {}, Opening.of(path, repository.keys))
        return list(files.values())
    for placement in loaded.placements:
        path = layout.macro_block(
            facts.tenant_id, facts.full_backup_set_id, facts.pg, placement.backup_set_id, placement.sub_task_id
        )
        file = files.get(path)
        if file is None:
            row = rows.get(layout.relative(path))
            if row is None:
                raise IntegrityError(f"{path}: the index points into it, but the manifest lacks it", path=path)
            opening = Opening.of(path, repository.keys) if loaded.facts.key_id else None
            file = files[path] = MacroFile(path, row, {}, opening)
        if placement.offset in file.expected:
            raise IntegrityError(f"{path}: two blocks at offset {placement.offset}", path=path, offset=placement.offset)
        file.expected[placement.offset] = placement
    return list(files.values())
