"""``backup_<I>/mover_manifest``: what every byte of a backup must be. mover's own file, in OceanBase's framing.

Frames, in this order: one with the facts of the set; any number with the block table, in exactly the order of the macro
index entries; any number with the file table; one with the counts and the root digest; the end mark. The root digest is
XXH3-128 over all block digests, then all file digests. The manifest holds no locations: the index says where bytes are,
the manifest what they must be, and restore joins the two by position.

Of an encrypted set block table and root are encrypted, and the root is bound to every byte before it. Facts and file
table are not: they say which key is needed, and files can be checked without it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mover.errors import FormatError, IntegrityError
from mover.kernel import Xxh3_128
from mover.media.frames import DATA_BUFFER, Frame, FrameReader, FrameWriter, end_mark, sealed_frame
from mover.media.header import DataType
from mover.media.layout import is_safe_relative
from mover.media.meta import JSON
from mover.media.pg import PGKey
from mover.media.sealed import Opening, Sealing
from mover.media.serial import BYTES, I32, I64, PG, TEXT, Buffer, Kind, Reader, Unis, array

MANIFEST_VERSION = 1
DIGEST_SIZE = 16
_BLOCK = struct.Struct("<QHHIQQqQ16s")
BLOCK_ROW_SIZE = _BLOCK.size
_ROOT = struct.Struct("<QQQ16s")
_MACRO_BLOCK_SIZE = 2 << 20


class ManifestBlock(NamedTuple):
    """One row of the block table: where in block_file the block goes, which block it is, what its bytes digest to."""

    block_index: int
    kind: int
    used_length: int
    tablet_id: int
    logical_version: int
    data_seq: int
    payload_checksum: int
    digest: bytes  # XXH3-128 of the used bytes

    def pack(self) -> bytes:
        """64 bytes, little-endian."""
        return _BLOCK.pack(self.block_index, self.kind, 0, *self[2:])


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One row of the file table."""

    path: str  # relative to the incarnation directory
    size: int
    digest: bytes  # XXH3-128 of the whole file

    def __post_init__(self) -> None:
        if not is_safe_relative(self.path):
            raise ValueError(f"unsafe path {self.path!r}")
        if self.size < 0 or len(self.digest) != DIGEST_SIZE:
            raise ValueError(f"size {self.size} or digest of {len(self.digest)} bytes of {self.path}")


@dataclass(frozen=True, slots=True)
class SetFacts:
    """What a restore must know of a set besides its bytes. LSNs are bytes, SCNs ns, ``*_us`` microseconds."""

    cluster_name: str
    cluster_id: int
    tenant_id: int
    tenant_name: str
    pg: PGKey
    full_backup_set_id: int
    backup_set_id: int
    prev_backup_set_id: int  # 0: builds on nothing
    backup_type: int  # BackupType
    engine: str  # "seekdb"
    engine_version: str
    start_lsn: int  # first log byte the image needs
    end_lsn: int  # consistent only with log up to here
    end_scn: int  # the earliest moment the set restores to
    block_file_size: int
    log_round: int  # archive round that was DOING
    started_us: int
    finished_us: int
    compression: str  # the setting: "none", "lz4", "zstd:3", "auto"
    parameters: Mapping[str, str] = field(default_factory=dict)  # start parameters a restored store needs
    proof: Mapping[str, Any] = field(default_factory=dict)  # how consistency was proven
    extra: Mapping[str, Any] = field(default_factory=dict)  # later versions of mover add keys here
    version: int = MANIFEST_VERSION

    @property
    def readable_by_oceanbase(self) -> bool:
        """True when the container bytes are what 3.1.0 writes: nothing is compressed or encrypted."""
        return self.compression == "none" and not self.key_id

    @property
    def key_id(self) -> str:
        """The data key the set is encrypted with, 16 hexadecimal digits; "" for none."""
        encryption = self.extra.get("encryption")
        return str(encryption.get("key_id", "")) if isinstance(encryption, dict) else ""


@dataclass(frozen=True, slots=True)
class ManifestRoot:
    """The last record: how much there is, and the digest over all digests."""

    block_count: int
    file_count: int
    block_bytes: int  # used bytes of all blocks
    digest: bytes


def _json_object(name: str) -> Kind[Mapping[str, Any]]:
    def get(reader: Reader, what: str) -> Mapping[str, Any]:
        start = reader.offset
        value = JSON.get(reader, what)
        if not isinstance(value, dict):
            raise reader.fail(f"{name} as a JSON object", at=start)
        return value

    return Kind(lambda value: JSON.put(dict(value)), get, 2)


_FACTS: Unis[SetFacts] = Unis(
    SetFacts,
    [
        ("version", I32),
        ("cluster_name", TEXT),
        ("cluster_id", I64),
        ("tenant_id", I64),
        ("tenant_name", TEXT),
        ("pg", PG),
        ("full_backup_set_id", I64),
        ("backup_set_id", I64),
        ("prev_backup_set_id", I64),
        ("backup_type", I32),
        ("engine", TEXT),
        ("engine_version", TEXT),
        ("start_lsn", I64),
        ("end_lsn", I64),
        ("end_scn", I64),
        ("block_file_size", I64),
        ("log_round", I64),
        ("started_us", I64),
        ("finished_us", I64),
        ("compression", TEXT),
        ("parameters", _json_object("parameters")),
        ("proof", _json_object("proof")),
        ("extra", _json_object("extra")),
    ],
)
_FILE: Unis[ManifestFile] = Unis(ManifestFile, [("path", TEXT), ("size", I64), ("digest", BYTES)])


@dataclass(frozen=True, slots=True)
class _Files:
    items: tuple[ManifestFile, ...]


_FILES: Unis[_Files] = Unis(_Files, [("items", array(_FILE))])
_FILES_PER_FRAME = 4096  # of at most about 1 KiB each


class ManifestWriter:
    """Makes the bytes of a manifest: facts, then blocks, then files, then ``finish``.

    Args:
        facts: of the set.
        sealing: encrypts block table and root.

    Bytes are taken away with :meth:`take` whenever the caller likes; memory stays within one frame and the file rows.
    """

    __slots__ = ("_blocks", "_bytes", "_count", "_digest", "_files", "_frames", "_hash", "_out", "_sealing", "root")

    def __init__(self, facts: SetFacts, sealing: Sealing | None = None) -> None:
        first = FrameWriter(DataType.MANIFEST_FACTS, DATA_BUFFER)
        first.add(_FACTS.encode(facts))
        first.flush()
        self._out = [first.take()]
        self._sealing = sealing
        self._hash = hashlib.sha256()  # of everything that was taken
        self._frames = FrameWriter(DataType.MANIFEST_BLOCKS, DATA_BUFFER, sealing=sealing, start=first.offset)
        self._digest = Xxh3_128()
        self._count = 0
        self._bytes = 0
        self._blocks = True
        self._files: list[ManifestFile] = []
        self.root: ManifestRoot | None = None  # set by finish

    def add_block(self, block: ManifestBlock) -> None:
        """The next row of the block table, in the order of the macro index entries. Raises ValueError after a file."""
        if not self._blocks:
            raise ValueError("blocks come before files")
        if len(block.digest) != DIGEST_SIZE:
            raise ValueError(f"digest of {len(block.digest)} bytes")
        self._frames.add(block.pack())
        self._digest.update(block.digest)
        self._count += 1
        self._bytes += block.used_length

    def add_blocks(self, blocks: Iterable[ManifestBlock]) -> None:
        for block in blocks:
            self.add_block(block)

    def add_file(self, path: str, size: int, digest: bytes) -> None:
        """One row of the file table. ``path`` is relative to the incarnation directory. Raises ValueError."""
        self._blocks = False
        self._files.append(ManifestFile(path, size, digest))

    def take(self) -> bytes:
        """Bytes finished since the last take."""
        done = b"".join((*self._out, self._frames.take()))
        self._out.clear()
        self._hash.update(done)
        return done

    def finish(self) -> bytes:
        """Everything not taken yet, with root and end mark. Files are sorted by path. Once only.

        Raises ValueError when a file was added twice.
        """
        self._frames.flush()
        out = [self.take()]
        files = sorted(self._files, key=lambda row: row.path)
        if len({row.path for row in files}) != len(files):
            raise ValueError("a file was added to the manifest twice")
        table = FrameWriter(DataType.MANIFEST_FILES, DATA_BUFFER * 2)
        for start in range(0, len(files), _FILES_PER_FRAME):
            rows = tuple(files[start : start + _FILES_PER_FRAME])
            table.add(_FILES.encode(_Files(rows)))
            table.flush()
        for row in files:
            self._digest.update(row.digest)
        out.append(table.take())
        self._hash.update(out[-1])
        self.root = ManifestRoot(self._count, len(files), self._bytes, self._digest.digest())
        record = _ROOT.pack(self._count, len(files), self._bytes, self.root.digest)
        if self._sealing is None:
            last = FrameWriter(DataType.MANIFEST_ROOT, DATA_BUFFER)
            last.add(record)
            out.append(last.finish())
        else:
            where = self._frames.offset + table.offset
            before = self._hash.digest()
            out.append(sealed_frame(DataType.MANIFEST_ROOT, record, self._sealing, offset=where, extra=before))
            out.append(end_mark())
        return b"".join(out)


class ManifestReader:
    """Reads a manifest that arrives in pieces.

    ``feed`` returns the rows of the block table as they come; ``facts`` is there as soon as the first frame is,
    ``files`` and ``root`` once ``finish`` returned. Nothing that was handed out is trustworthy before ``finish``, which
    checks the counts and the root digest.

    Args:
        opening: decrypts what is encrypted; without it ``feed`` raises EncryptionKeyError there.
        locked: do without what is encrypted: no block rows, no root, and the digest is not checked.
    """

    __slots__ = ("_blocks", "_bytes", "_digest", "_facts", "_files", "_frames", "_hash", "_locked", "_stage", "root")

    def __init__(self, opening: Opening | None = None, *, locked: bool = False) -> None:
        self._frames = FrameReader(opening=opening)
        self._hash = hashlib.sha256()
        self._locked = locked
        self._digest = Xxh3_128()
        self._stage = DataType.MANIFEST_FACTS
        self._facts: SetFacts | None = None
        self._files: list[ManifestFile] = []
        self._blocks = 0
        self._bytes = 0
        self.root: ManifestRoot | None = None

    @property
    def has_facts(self) -> bool:
        """True once the first frame was read."""
        return self._facts is not None

    @property
    def facts(self) -> SetFacts:
        """Raises FormatError while the first frame is not there."""
        if self._facts is None:
            raise FormatError("manifest ends before its facts")
        return self._facts

    @property
    def files(self) -> tuple[ManifestFile, ...]:
        """The file table, sorted by path."""
        return tuple(self._files)

    def feed(self, data: Buffer) -> list[ManifestBlock]:
        """The block rows that ``data`` completes. Raises FormatError, IntegrityError."""
        rows: list[ManifestBlock] = []
        for source in self._frames.feed(data):
            rows += self._frame(source)
        return rows

    def finish(self) -> ManifestRoot:
        """The file is over: counts and root digest must hold. Raises FormatError, IntegrityError."""
        self._frames.finish()
        if self.root is None:
            raise FormatError("manifest has no root record")
        return self.root

    def _frame(self, source: Frame) -> list[ManifestBlock]:
        kind = source.header.data_type
        first = self._stage == DataType.MANIFEST_FACTS and self._facts is None
        if kind < self._stage or kind > DataType.MANIFEST_ROOT or (first != (kind == DataType.MANIFEST_FACTS)):
            raise FormatError(
                f"bad manifest at offset {source.offset}: data type {kind} after {int(self._stage)}",
                offset=source.offset,
            )
        if self.root is not None:
            raise FormatError(f"bad manifest at offset {source.offset}: a record behind the root", offset=source.offset)
        self._stage = DataType(kind)
        self._require_sealed(source)
        if self._locked and source.header.sealed:
            if kind == DataType.MANIFEST_ROOT:
                self.root = ManifestRoot(0, len(self._files), 0, bytes(DIGEST_SIZE))
            return []
        payload = source.data(self._hash.digest() if kind == DataType.MANIFEST_ROOT else b"")
        self._hash.update(source.header.pack())
        self._hash.update(source.payload)
        self._hash.update(bytes(source.header.align_length))
        if kind == DataType.MANIFEST_FACTS:
            self._facts = _FACTS.decode(payload, base_offset=source.payload_offset)
            if self._facts.version != MANIFEST_VERSION:
                raise FormatError(
                    f"manifest version {self._facts.version}, this mover reads {MANIFEST_VERSION}",
                    hint="Use a newer mover.",
                    offset=source.payload_offset,
                )
        elif kind == DataType.MANIFEST_BLOCKS:
            return self._block_rows(payload, source.payload_offset)
        elif kind == DataType.MANIFEST_FILES:
            for row in _FILES.decode(payload, base_offset=source.payload_offset).items:
                if self._files and self._files[-1].path >= row.path:
                    raise FormatError(f"manifest file {row.path!r} is out of order", offset=source.payload_offset)
                self._files.append(row)
                self._digest.update(row.digest)
        else:
            self._check_root(payload, source.payload_offset)
        return []

    def _require_sealed(self, source: Frame) -> None:
        """Block table and root are encrypted when the facts say so, and only then; nothing else is."""
        secret = source.header.data_type in (DataType.MANIFEST_BLOCKS, DataType.MANIFEST_ROOT)
        wanted = secret and self._facts is not None and bool(self._facts.key_id)
        if source.header.sealed != wanted:
            raise FormatError(
                f"bad manifest at offset {source.offset}: expected {'an encrypted' if wanted else 'a plain'} frame",
                offset=source.offset,
            )

    def _block_rows(self, payload: bytes, offset: int) -> list[ManifestBlock]:
        if len(payload) % BLOCK_ROW_SIZE:
            raise FormatError(
                f"bad block table at offset {offset}: {len(payload)} bytes are not rows of {BLOCK_ROW_SIZE}",
                offset=offset,
            )
        rows: list[ManifestBlock] = []
        for index, kind, reserved, used, *identity, digest in _BLOCK.iter_unpack(payload):
            if reserved or used > _MACRO_BLOCK_SIZE:
                where = offset + len(rows) * BLOCK_ROW_SIZE
                raise FormatError(f"bad block row at offset {where}: block {index}, {used} bytes used", offset=where)
            rows.append(ManifestBlock._make((index, kind, used, *identity, digest)))
            self._digest.update(digest)
            self._bytes += used
        self._blocks += len(rows)
        return rows

    def _check_root(self, payload: bytes, offset: int) -> None:
        if len(payload) != _ROOT.size:
            raise FormatError(f"bad manifest root at offset {offset}: {len(payload)} bytes", offset=offset)
        root = ManifestRoot(*_ROOT.unpack(payload))
        found = ManifestRoot(self._blocks, len(self._files), self._bytes, self._digest.digest())
        if root != found:
            raise IntegrityError(
                f"manifest root: expected {root.block_count} blocks, {root.file_count} files and digest"
                f" {root.digest.hex()}, found {found.block_count}, {found.file_count} and {found.digest.hex()}",
                offset=offset,
            )
        self.root = root


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole manifest in memory."""

    facts: SetFacts
    blocks: tuple[ManifestBlock, ...]
    files: tuple[ManifestFile, ...]
    root: ManifestRoot


def read_manifest(data: Buffer | Iterable[Buffer], opening: Opening | None = None, *, locked: bool = False) -> Manifest:
    """Decode and check a manifest, given whole or in pieces; ``locked`` as :class:`ManifestReader`.

    Raises FormatError, IntegrityError, EncryptionKeyError.
    """
    reader = ManifestReader(opening, locked=locked)
    pieces: Iterator[Buffer] = iter([data]) if isinstance(data, bytes | bytearray | memoryview) else iter(data)
    blocks = [row for piece in pieces for row in reader.feed(piece)]
    root = reader.finish()
    return Manifest(reader.facts, tuple(blocks), reader.files, root)
