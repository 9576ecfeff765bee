"""Encrypted payloads in OceanBase's framing: what marks them, and what each is bound to.

A frame is encrypted when its compressor field has SEALED set: the payload as stored is then the (compressed) payload,
encrypted, and the trailer of :mod:`mover.encryption.cipher`. Everything that holds without a key still does: header,
checksum of the payload as stored, padding, digest of the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mover.encryption.cipher import TRAILER_SIZE, Keys, Sealer, key_id_of, missing_key
from mover.errors import FormatError, IntegrityError
from mover.kernel import PackedFrame, ob_crc64
from mover.kernel.pack import FRAME_ALIGN
from mover.media.header import HEADER_SIZE, SEALED, CommonHeader, parse_header
from mover.media.layout import FileKind, parse_path
from mover.media.serial import Buffer

ANYWHERE = (1 << 64) - 1
"""The offset of frames that find their place in a file only after they were encrypted: those of macro files."""
_BOUND = struct.Struct(">QHHQ")
_DOMAIN = b"mover sealed 1\0"


@dataclass(frozen=True, slots=True)
class Place:
    """What file the pieces are in. ``anywhere``: they are bound to the set whose file it is, not to their offset."""

    name: str
    anywhere: bool = False

    def aad(self, offset: int, data_type: int, codec: int, raw_length: int, extra: bytes = b"") -> bytes:
        """The associated data of a piece; ``extra`` is what it is bound to besides."""
        where = ANYWHERE if self.anywhere else offset
        return _DOMAIN + self.name.encode() + b"\0" + _BOUND.pack(where, data_type, codec, raw_length) + extra


def place_of(path: str) -> Place:
    """The place of a file, from its path in the tree, whatever precedes the cluster directory.

    Raises FormatError for a path outside of a tree: nothing can be decrypted there.
    """
    parsed = parse_path(path)
    if parsed is None or parsed.kind is FileKind.TEMPORARY:
        raise FormatError(
            f"{path}: not the path of a file in a backup tree, and encrypted bytes are bound to theirs", path=path
        )
    name = path[len(parsed.root) :]
    if parsed.kind is FileKind.MACRO_BLOCK:
        return Place(name.rpartition(".")[0], anywhere=True)
    return Place(name)


@dataclass(frozen=True, slots=True)
class Sealing:
    """What the payloads of a file are encrypted with, and bound to."""

    sealer: Sealer
    place: Place

    def payload(self, plain: Buffer, *, offset: int, data_type: int, codec: int, raw: int, extra: bytes = b"") -> bytes:
        """The payload as stored of a frame at ``offset``."""
        return self.sealer.seal(plain, self.place.aad(offset, data_type, codec, raw, extra))

    def in_place(self, buffer: memoryview, start: int, packed: PackedFrame) -> PackedFrame:
        """Encrypt the frame that the kernel put at ``start`` of ``buffer``, where it is; the frame as it is then.

        There must be room for TRAILER_SIZE more bytes of payload and the padding behind them.
        """
        header = parse_header(buffer[start : start + HEADER_SIZE])
        aad = self.place.aad(ANYWHERE, header.data_type, header.codec, header.data_length)
        payload = buffer[start + HEADER_SIZE :]
        stored = self.sealer.seal_in_place(payload, packed.stored, aad)
        align = -(HEADER_SIZE + stored) % FRAME_ALIGN
        payload[stored : stored + align] = bytes(align)
        sealed = CommonHeader(
            header.data_type, header.data_length, stored, ob_crc64(payload[:stored]), align, header.codec | SEALED
        )
        buffer[start : start + HEADER_SIZE] = sealed.pack()
        return PackedFrame(sealed.total, stored, packed.compressor)


@dataclass(frozen=True, slots=True)
class Opening:
    """What the payloads of a file are decrypted with; without keys only asking for one fails."""

    keys: Keys
    place: Place

    @classmethod
    def of(cls, path: str, keys: Keys) -> Opening:
        """For the file at ``path``. Raises FormatError as :func:`place_of`."""
        return cls(keys, place_of(path))

    def payload(self, header: CommonHeader, stored: Buffer, offset: int, extra: bytes = b"") -> bytes:
        """The (compressed) payload of an encrypted frame. Raises EncryptionKeyError, IntegrityError."""
        aad = self.place.aad(offset, header.data_type, header.codec, header.data_length, extra)
        try:
            return self.keys.open(stored, aad)
        except IntegrityError as exc:
            raise IntegrityError(f"frame at offset {offset}: {exc.message}", offset=offset) from None

    def in_place(self, frame: memoryview, offset: int) -> int:
        """Turn an encrypted frame into the plain one, where it is.

        Args:
            frame: writable, exactly the frame. offset: of it in its file.

        Returns the bytes of the plain frame, which may be a page shorter. Raises FormatError for what is no encrypted
        frame, IntegrityError for one that does not decrypt, EncryptionKeyError.
        """
        header = parse_header(frame, offset=offset)
        if not header.sealed:
            raise FormatError(f"the frame at offset {offset} is not encrypted, but its set is", offset=offset)
        stored = frame[HEADER_SIZE : HEADER_SIZE + header.data_zlength]
        rest = bytes(frame[HEADER_SIZE + header.data_zlength :])
        if header.total != len(frame) or len(rest) >= FRAME_ALIGN or any(rest):
            raise FormatError(f"bad frame at offset {offset}: its lengths or its padding do not hold", offset=offset)
        # The tag says what the checksum would, and with certainty; but not when it is the key's id that was damaged.
        if key_id_of(stored) not in self.keys:
            header.check_payload(stored, offset=offset)
        aad = self.place.aad(offset, header.data_type, header.codec, header.data_length)
        try:
            length = self.keys.open_into(stored, stored, aad)
        except IntegrityError as exc:
            raise IntegrityError(f"frame at offset {offset}: {exc.message}", offset=offset) from None
        stored[length:] = bytes(TRAILER_SIZE)
        align = -(HEADER_SIZE + length) % FRAME_ALIGN
        plain = CommonHeader(
            header.data_type, header.data_length, length, ob_crc64(stored[:length]), align, header.codec
        )
        frame[:HEADER_SIZE] = plain.pack()
        return plain.total


def locked(stored: Buffer, offset: int) -> Exception:
    """The error of whoever needs an encrypted payload without a key."""
    try:
        return missing_key(key_id_of(stored).hex())
    except IntegrityError as exc:
        return IntegrityError(f"frame at offset {offset}: {exc.message}", offset=offset)
