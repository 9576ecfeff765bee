"""The framing inside append-only files: ``header | payload | zeros up to 4096``, closed by an end-mark frame.

Written by :func:`frame` and :func:`end_mark`, read by :class:`FrameReader`, which takes the file in pieces of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mover.errors import FormatError
from mover.kernel import lz4_decompress, ob_crc64, zstd_decompress
from mover.media.header import HEADER_SIZE, SEALED, CommonHeader, Compressor, DataType, parse_header
from mover.media.sealed import Opening, Sealing, locked
from mover.media.serial import Buffer

FRAME_ALIGN = 4096
DATA_BUFFER = 4 << 20  # meta and macro frames: header and payload together
INDEX_BUFFER = 256 << 10  # index frames
# No writer makes a larger frame; a header that claims more is refused before anything is collected for it.
MAX_PAYLOAD = 16 << 20
_ZEROS = bytes(FRAME_ALIGN)


def padding(length: int) -> int:
    """Zero bytes that bring ``length`` to a multiple of 4096."""
    return -length % FRAME_ALIGN


def frame_header(
    data_type: int, stored_length: int, stored_checksum: int, *, raw_length: int, compressor: int = Compressor.NONE
) -> CommonHeader:
    """The header of a frame whose payload the caller places itself (the datapath does, to spare a copy).

    Args:
        data_type: see DataType.
        stored_length: payload bytes as stored.
        stored_checksum: ob_crc64 over them.
        raw_length: payload bytes before compression.
        compressor: see Compressor.

    The frame is ``header.pack()``, the payload, ``header.align_length`` zero bytes.
    """
    align = padding(HEADER_SIZE + stored_length)
    return CommonHeader(data_type, raw_length, stored_length, stored_checksum, align, compressor)


def frame(
    data_type: int, payload: Buffer, *, compressor: int = Compressor.NONE, raw_length: int | None = None
) -> bytes:
    """One whole frame.

    Args:
        payload: as stored, that is already compressed when ``compressor`` says so.
        raw_length: its length before compression; needed when compressed.
    """
    raw = len(payload) if raw_length is None else raw_length
    header = frame_header(data_type, len(payload), ob_crc64(payload), raw_length=raw, compressor=compressor)
    return b"".join((header.pack(), payload, _ZEROS[: header.align_length]))


def sealed_frame(data_type: int, plain: Buffer, sealing: Sealing, *, offset: int, extra: bytes = b"") -> bytes:
    """One whole encrypted frame, not compressed, for ``offset`` of its file. ``extra``: as :meth:`Frame.data`."""
    codec, raw = Compressor.NONE, len(plain)
    stored = sealing.payload(plain, offset=offset, data_type=data_type, codec=codec, raw=raw, extra=extra)
    return frame(data_type, stored, compressor=codec | SEALED, raw_length=raw)


def end_mark() -> bytes:
    """The last frame of every append-only file: no payload, 4096 bytes."""
    return frame(DataType.FILE_END_MARK, b"")


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that was read and whose header, checksum and padding hold."""

    offset: int  # of its header in the file
    header: CommonHeader
    payload: bytes  # as stored
    opening: Opening | None = None  # what decrypts it, if that is needed

    @property
    def size(self) -> int:
        """Header, payload and padding, bytes."""
        return self.header.total

    @property
    def payload_offset(self) -> int:
        return self.offset + HEADER_SIZE

    def data(self, extra: bytes = b"") -> bytes:
        """The payload before compression and encryption. ``extra``: see :meth:`mover.media.sealed.Place.aad`.

        Raises IntegrityError when it is not what the header says, EncryptionKeyError when its key is not at hand.
        """
        payload, header = self.payload, self.header
        if header.sealed:
            if self.opening is None:
                raise locked(payload, self.offset)
            payload = self.opening.payload(header, payload, self.offset, extra)
        return decompress(payload, header.codec, header.data_length, self.offset)


def decompress(stored: Buffer, compressor: int, raw_length: int, offset: int = 0) -> bytes:
    """Undo ``compressor``. Raises IntegrityError, or FormatError for a compressor mover does not have."""
    if compressor == Compressor.NONE:
        return bytes(stored)
    if raw_length > MAX_PAYLOAD:
        raise FormatError(
            f"bad length at offset {offset}: expected at most {MAX_PAYLOAD} raw bytes, found {raw_length}",
            offset=offset,
        )
    if compressor in (Compressor.ZSTD_1_3_8, Compressor.ZSTD):
        return zstd_decompress(stored, raw_length)
    if compressor in (Compressor.LZ4, Compressor.LZ4_191):
        return lz4_decompress(stored, raw_length)
    raise FormatError(f"unsupported compressor {compressor} at offset {offset}", offset=offset)


def _check_header(header: CommonHeader, offset: int, data_type: int | None) -> None:
    if data_type is not None and header.data_type not in (data_type, DataType.FILE_END_MARK):
        raise FormatError(
            f"bad frame at offset {offset}: expected data type {data_type}, found {header.data_type}", offset=offset
        )
    if max(header.data_zlength, header.data_length) > MAX_PAYLOAD:
        raise FormatError(
            f"bad frame at offset {offset}: expected a payload of at most {MAX_PAYLOAD} bytes,"
            f" found {header.data_zlength} stored and {header.data_length} raw",
            offset=offset,
        )
    if header.align_length != padding(HEADER_SIZE + header.data_zlength):
        raise FormatError(
            f"bad frame at offset {offset}: expected {padding(HEADER_SIZE + header.data_zlength)} bytes of padding,"
            f" found {header.align_length}",
            offset=offset,
        )
    if header.data_type == DataType.FILE_END_MARK and (header.data_zlength or header.compressor != Compressor.NONE):
        raise FormatError(f"bad end mark at offset {offset}: expected no payload", offset=offset)


def _complete(header: CommonHeader, body: Buffer, offset: int, opening: Opening | None) -> Frame:
    """A frame from its header and everything behind it."""
    payload = bytes(body[: header.data_zlength])
    header.check_payload(payload, offset=offset)
    rest = bytes(body[header.data_zlength :])
    if rest.count(0) != len(rest):
        where = offset + HEADER_SIZE + header.data_zlength
        raise FormatError(f"bad padding at offset {where}: expected {len(rest)} zero bytes", offset=where)
    return Frame(offset, header, payload, opening)


def read_frame(
    data: Buffer, *, offset: int, data_type: int | None = None, strict: bool = True, opening: Opening | None = None
) -> Frame:
    """The one frame that fills ``data``, as an index entry names it by offset and length.

    Raises FormatError; also when ``data`` is longer or shorter than the frame.
    """
    header = parse_header(data, offset=offset, strict=strict)
    _check_header(header, offset, data_type)
    if header.data_type == DataType.FILE_END_MARK or len(data) != header.total:
        raise FormatError(
            f"bad frame at offset {offset}: expected a frame of {len(data)} bytes, found one of {header.total}"
            f" and type {header.data_type}",
            offset=offset,
        )
    return _complete(header, memoryview(data)[HEADER_SIZE:], offset, opening)


class FrameReader:
    """Reads frames from a file that arrives in pieces.

    Args:
        data_type: refuse frames of another type (the end mark aside).
        base_offset: offset of the first byte that will be fed.
        strict: see :func:`mover.media.header.parse_header`.
        opening: what decrypts the frames; without it those that are encrypted are checked as far as that goes.

    Holds at most one unfinished frame (16 MiB and 4 KiB).
    """

    __slots__ = ("_buffer", "_header", "data_type", "ended", "offset", "opening", "strict")

    def __init__(
        self,
        data_type: int | None = None,
        *,
        base_offset: int = 0,
        strict: bool = True,
        opening: Opening | None = None,
    ) -> None:
        self.data_type = data_type
        self.offset = base_offset  # of the next frame
        self.strict = strict
        self.opening = opening
        self.ended = False  # the end mark was read
        self._buffer = bytearray()
        self._header: CommonHeader | None = None

    def feed(self, data: Buffer) -> list[Frame]:
        """The frames that ``data`` completes, without the end mark. Raises FormatError."""
        self._buffer += data
        frames: list[Frame] = []
        position = 0
        with memoryview(self._buffer) as view:
            while True:
                left = len(view) - position
                if self.ended and left:
                    raise FormatError(f"bytes behind the end mark at offset {self.offset}", offset=self.offset)
                if self._header is None:
                    if left < HEADER_SIZE:
                        break
                    header = parse_header(
                        view[position : position + HEADER_SIZE], offset=self.offset, strict=self.strict
                    )
                    _check_header(header, self.offset, self.data_type)
                    self._header = header
                header = self._header
                if left < header.total:
                    break
                # Nothing may hold a view of the buffer when it shrinks.
                done = _complete(
                    header, view[position + HEADER_SIZE : position + header.total], self.offset, self.opening
                )
                position += header.total
                self.offset += header.total
                self._header = None
                if header.data_type == DataType.FILE_END_MARK:
                    self.ended = True
                else:
                    frames.append(done)
        del self._buffer[:position]
        return frames

    def finish(self) -> None:
        """The file is over. Raises FormatError when a frame is torn or the end mark is missing."""
        if self._buffer:
            raise FormatError(
                f"torn frame at offset {self.offset}: {len(self._buffer)} bytes of it are there", offset=self.offset
            )
        if not self.ended:
            raise FormatError(f"end mark missing at offset {self.offset}", offset=self.offset)


def iter_frames(
    data: Buffer,
    *,
    base_offset: int = 0,
    data_type: int | None = None,
    strict: bool = True,
    opening: Opening | None = None,
) -> Iterator[Frame]:
    """Every frame of a whole file in memory; the end mark must be there. Raises FormatError."""
    reader = FrameReader(data_type, base_offset=base_offset, strict=strict, opening=opening)
    view = memoryview(data)
    for start in range(0, len(view), DATA_BUFFER):
        yield from reader.feed(view[start : start + DATA_BUFFER])
    reader.finish()


class FrameWriter:
    """Collects records into frames of one type, flushing when the next record would not fit.

    Args:
        data_type: of the frames.
        buffer: largest header and payload together, bytes; encrypted they take a trailer more.
        sealing: encrypts every frame.
        start: offset in the file of the first frame.

    The bytes are taken away with :meth:`take`; :meth:`finish` flushes and adds the end mark.
    """

    __slots__ = ("_done", "_payload", "_sealing", "buffer", "data_type", "offset")

    def __init__(self, data_type: int, buffer: int, *, sealing: Sealing | None = None, start: int = 0) -> None:
        self.data_type = data_type
        self.buffer = buffer
        self.offset = start  # of the next frame in the file
        self._sealing = sealing
        self._payload = bytearray()
        self._done: list[bytes] = []

    def add(self, record: Buffer) -> int:
        """Append one record. Returns its offset in the file. Raises ValueError when it can fit in no frame."""
        if HEADER_SIZE + len(record) > self.buffer:
            raise ValueError(f"record of {len(record)} bytes does not fit in a frame of {self.buffer}")
        if HEADER_SIZE + len(self._payload) + len(record) > self.buffer:
            self.flush()
        where = self.offset + HEADER_SIZE + len(self._payload)
        self._payload += record
        return where

    def flush(self) -> None:
        """Close the open frame, if it holds anything."""
        if self._payload:
            if self._sealing is None:
                done = frame(self.data_type, self._payload)
            else:
                done = sealed_frame(self.data_type, self._payload, self._sealing, offset=self.offset)
            self._done.append(done)
            self.offset += len(done)
            self._payload = bytearray()

    def take(self) -> bytes:
        """The finished frames that were not taken yet."""
        done = b"".join(self._done)
        self._done.clear()
        return done

    def finish(self) -> bytes:
        """Flush, add the end mark and return everything not yet taken. Once only."""
        self.flush()
        self._done.append(end_mark())
        self.offset += FRAME_ALIGN
        return self.take()
