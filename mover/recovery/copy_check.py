"""A file of a backup tree, verified while it is copied: by the digest of its manifest, else by its own checksums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mover.errors import FormatError, IntegrityError
from mover.kernel import Xxh3_128
from mover.media.archive_index import INDEX_RECORD_SIZE
from mover.media.block_stream import BadRun, BlockStream
from mover.media.frames import FrameReader
from mover.media.header import DataType
from mover.media.inspect import describe
from mover.media.layout import FileKind
from mover.media.manifest import ManifestFile
from mover.recovery.copy_plan import Wanted
from mover.repository.sets import check_digest
from mover.repository.tree import name_file

_FRAMED = {
    FileKind.MACRO_BLOCK: DataType.MACRO_DATA,
    FileKind.MACRO_BLOCK_INDEX: DataType.MACRO_DATA_INDEX,
    FileKind.META_FILE: DataType.META,
    FileKind.META_INDEX_FILE: DataType.META_INDEX,
}
_FEED = 256 << 10  # a frame reader copies what it is fed


class Check(Protocol):
    """Takes a file front to back; ``finish`` raises IntegrityError unless all of it holds."""

    def feed(self, data: memoryview) -> None: ...

    def finish(self) -> None: ...


class _Frames:
    def __init__(self, data_type: int) -> None:
        # Mover's own rules are the manifest's business; here every header and checksum counts.
        self._reader = FrameReader(data_type, strict=False)

    def feed(self, data: memoryview) -> None:
        for start in range(0, len(data), _FEED):
            self._reader.feed(data[start : start + _FEED])

    def finish(self) -> None:
        self._reader.finish()


class _Blocks:
    def __init__(self, size: int) -> None:
        self._stream = BlockStream(size)

    def feed(self, data: memoryview) -> None:
        for item in self._stream.feed(data):
            if isinstance(item, BadRun):
                raise FormatError(item.reason, offset=item.offset)

    def finish(self) -> None:
        torn = self._stream.finish()
        if torn is not None and not torn.cut:
            raise FormatError(torn.reason, offset=torn.offset)


class _Whole:
    def __init__(self, path: str) -> None:
        self._path = path
        self._data = bytearray()

    def feed(self, data: memoryview) -> None:
        self._data += data

    def finish(self) -> None:
        found = describe(self._path, bytes(self._data))
        if not found["ok"]:
            error = found.get("error") or {"message": "it does not decode", "offset": 0}
            raise FormatError(str(error["message"]), offset=int(error.get("offset") or 0))


class CopyCheck:
    """One file on its way: its own checksums, the manifest's digest where there is one, and the digest for the record.

    All methods raise IntegrityError that names the file; they may run in a thread, one at a time.
    """

    def __init__(self, item: Wanted, rows: Mapping[str, ManifestFile]) -> None:
        self._item = item
        self._row = rows.get(item.path)
        self._digest = Xxh3_128()
        self._size = 0
        kind = item.file.place.kind
        self._check: Check
        if kind in _FRAMED:
            self._check = _Frames(_FRAMED[kind])
        elif kind is FileKind.ARCHIVE_DATA:
            self._check = _Blocks(item.file.size)
        else:
            self._check = _Whole(item.path)

    def feed(self, data: memoryview) -> None:
        """The next bytes."""
        self._digest.update(data)
        self._size += len(data)
        try:
            self._check.feed(data)
        except IntegrityError as exc:
            raise name_file(exc, self._item.path) from None

    def finish(self) -> str:
        """The file is over; its digest, hex."""
        try:
            self._check.finish()
        except IntegrityError as exc:
            raise name_file(exc, self._item.path) from None
        digest = self._digest.digest()
        if self._row is not None:
            check_digest(self._row, self._item.path, self._size, digest)
        return digest.hex()


def whole_part(item: Wanted, data: bytes) -> bytes:
    """Of a log file that may be growing: what ends with a whole block or record."""
    if item.file.place.kind is FileKind.ARCHIVE_INDEX:
        return data[: len(data) - len(data) % INDEX_RECORD_SIZE]
    stream = BlockStream(len(data))
    for found in stream.feed(data):
        if isinstance(found, BadRun):
            return data  # damage: the check says so
    torn = stream.finish()
    return data if torn is None or not torn.cut else data[: torn.offset]
