"""zstd, LZ4 and varints. The contracts are those of the twin, ``mover/kernel/_codec_py.py``."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp

from liblz4 cimport LZ4_compress_default, LZ4_compressBound, LZ4_decompress_safe
from libzstd cimport (
    ZSTD_CCtx,
    ZSTD_compressBound,
    ZSTD_compressCCtx,
    ZSTD_CONTENTSIZE_ERROR,
    ZSTD_CONTENTSIZE_UNKNOWN,
    ZSTD_DCtx,
    ZSTD_decompressDCtx,
    ZSTD_findFrameCompressedSize,
    ZSTD_getErrorName,
    ZSTD_getFrameContentSize,
    ZSTD_isError,
    mover_zstd_compressor,
    mover_zstd_decompressor,
    mover_zstd_setup,
)

from mover.errors import FormatError, IntegrityError
from mover.kernel.limits import (
    LZ4_MAX_INPUT,
    LZ4_MAX_RATIO,
    ZSTD_MAX_RATIO,
    check_claim,
    check_level,
)

cdef extern from "Python.h":
    # By pointer: a bytes object may be written and resized only while nothing else holds it.
    PyObject *new_bytes "PyBytes_FromStringAndSize"(char *data, Py_ssize_t size) except NULL
    char *bytes_data "PyBytes_AS_STRING"(PyObject *bytes)
    int resize_bytes "_PyBytes_Resize"(PyObject **bytes, Py_ssize_t size) except -1

if mover_zstd_setup() != 0:
    raise MemoryError("no thread-specific key left for zstd contexts")

cdef char *ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def zstd_compress(data, level):
    check_level(level)
    cdef Py_buffer view
    cdef ZSTD_CCtx *context
    cdef PyObject *out = NULL
    cdef char *target
    cdef size_t size, room
    cdef int c_level = level
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        context = mover_zstd_compressor()
        if context == NULL:
            raise MemoryError
        room = ZSTD_compressBound(<size_t>view.len)
        out = new_bytes(NULL, <Py_ssize_t>room)
        target = bytes_data(out)
        with nogil:
            size = ZSTD_compressCCtx(context, target, room, view.buf, <size_t>view.len, c_level)
        if ZSTD_isError(size):
            raise MemoryError(f"zstd: {ZSTD_getErrorName(size).decode()}")
        resize_bytes(&out, <Py_ssize_t>size)
        return <object>out
    finally:
        Py_XDECREF(out)
        PyBuffer_Release(&view)


def zstd_decompress(data, size):
    cdef Py_buffer view
    cdef ZSTD_DCtx *context
    cdef PyObject *out = NULL
    cdef char *target
    cdef unsigned long long claimed
    cdef size_t expected, frame, got
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        check_claim("zstd", view.len, size, ZSTD_MAX_RATIO)
        expected = size
        if view.len < 4 or memcmp(view.buf, ZSTD_MAGIC, 4) != 0:
            raise IntegrityError("zstd: not a frame")
        claimed = ZSTD_getFrameContentSize(view.buf, <size_t>view.len)
        if claimed == ZSTD_CONTENTSIZE_ERROR:
            raise IntegrityError("zstd: not a frame header")
        if claimed != ZSTD_CONTENTSIZE_UNKNOWN and claimed != expected:
            raise IntegrityError(f"zstd: the frame says {claimed} bytes, {size} expected")
        frame = ZSTD_findFrameCompressedSize(view.buf, <size_t>view.len)
        if ZSTD_isError(frame):
            raise IntegrityError(f"zstd: {ZSTD_getErrorName(frame).decode()}")
        if frame != <size_t>view.len:
            raise IntegrityError(f"zstd: {<size_t>view.len - frame} bytes behind the frame")
        context = mover_zstd_decompressor()
        if context == NULL:
            raise MemoryError
        out = new_bytes(NULL, <Py_ssize_t>expected)
        target = bytes_data(out)
        with nogil:
            got = ZSTD_decompressDCtx(context, target, expected, view.buf, <size_t>view.len)
        if ZSTD_isError(got):
            raise IntegrityError(f"zstd: {ZSTD_getErrorName(got).decode()}")
        if got != expected:
            raise IntegrityError(f"zstd: {got} bytes decompressed, {size} expected")
        return <object>out
    finally:
        Py_XDECREF(out)
        PyBuffer_Release(&view)


def lz4_compress(data):
    cdef Py_buffer view
    cdef PyObject *out = NULL
    cdef char *target
    cdef int size, room
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len > LZ4_MAX_INPUT:
            raise ValueError(f"lz4 takes at most {LZ4_MAX_INPUT} bytes, got {view.len}")
        room = LZ4_compressBound(<int>view.len)
        out = new_bytes(NULL, room)
        target = bytes_data(out)
        with nogil:
            size = LZ4_compress_default(<const char *>view.buf, target, <int>view.len, room)
        if size <= 0:
            raise MemoryError("lz4: no room")
        resize_bytes(&out, size)
        return <object>out
    finally:
        Py_XDECREF(out)
        PyBuffer_Release(&view)


def lz4_decompress(data, size):
    cdef Py_buffer view
    cdef PyObject *out = NULL
    cdef char *target
    cdef int expected, got
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        check_claim("lz4", view.len, size, LZ4_MAX_RATIO)
        if view.len > LZ4_MAX_INPUT or size > LZ4_MAX_INPUT:
            raise IntegrityError(f"lz4: a block holds at most {LZ4_MAX_INPUT} bytes")
        expected = size
        out = new_bytes(NULL, expected)
        target = bytes_data(out)
        with nogil:
            got = LZ4_decompress_safe(<const char *>view.buf, target, <int>view.len, expected)
        if got < 0:
            raise IntegrityError(f"lz4: not a block of {size} bytes")
        if got != expected:
            raise IntegrityError(f"lz4: {got} bytes decompressed, {size} expected")
        return <object>out
    finally:
        Py_XDECREF(out)
        PyBuffer_Release(&view)


cdef inline int write_vi64(uint8_t *out, uint64_t value) noexcept nogil:
    """At most 10 bytes to ``out``; returns how many."""
    cdef int n = 0
    while value > 0x7F:
        out[n] = <uint8_t>(value & 0x7F) | 0x80
        value >>= 7
        n += 1
    out[n] = <uint8_t>value
    return n + 1


cdef enum:
    CUT_OFF = -1
    TOO_LONG = -2
    TOO_BIG = -3


cdef inline int read_vi64(const uint8_t *data, size_t left, uint64_t *value) noexcept nogil:
    """Bytes read from at most ``left``, or CUT_OFF, TOO_LONG, TOO_BIG."""
    cdef uint64_t out = 0
    cdef size_t n = 0
    while n < left and n < 10:
        # Shift 63 keeps one bit of the tenth byte: more than that does not fit.
        if n == 9 and data[n] < 0x80 and data[n] > 1:
            return TOO_BIG
        out |= <uint64_t>(data[n] & 0x7F) << (7 * n)
        if data[n] < 0x80:
            value[0] = out
            return <int>n + 1
        n += 1
    return TOO_LONG if n == 10 else CUT_OFF


def encode_vi64(value):
    cdef uint8_t out[10]
    if not -(1 << 63) <= value <= 0xFFFFFFFFFFFFFFFF:
        raise ValueError(f"{value} does not fit 64 bits")
    return PyBytes_FromStringAndSize(<char *>out, write_vi64(out, value & 0xFFFFFFFFFFFFFFFF))


def decode_vi64(buf, Py_ssize_t offset=0):
    cdef Py_buffer view
    cdef uint64_t value = 0
    cdef int n = CUT_OFF
    if offset < 0:
        raise FormatError(f"varint at a negative offset {offset}", offset=offset)
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        if offset < view.len:
            n = read_vi64(<const uint8_t *>view.buf + offset, <size_t>(view.len - offset), &value)
    finally:
        PyBuffer_Release(&view)
    if n == CUT_OFF:
        raise FormatError(f"varint at offset {offset} is cut off by the end of the buffer", offset=offset)
    if n == TOO_LONG:
        raise FormatError(f"varint at offset {offset} is longer than 10 bytes", offset=offset)
    if n == TOO_BIG:
        raise FormatError(f"varint at offset {offset} does not fit 64 bits", offset=offset)
    return value, offset + n
