"""Checksums. The contracts are those of the twin, ``mover/kernel/_checksum_py.py``."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from crc32c cimport mover_crc32c, mover_crc_portable, mover_crc_setup
from crc64 cimport mover_crc64, mover_crc64_combine, mover_crc64_portable, mover_crc64_setup
from xxhash3 cimport (
    XXH128_canonical_t,
    XXH128_canonicalFromHash,
    XXH128_hash_t,
    XXH3_128bits_digest,
    XXH3_128bits_reset,
    XXH3_createState,
    XXH3_freeState,
    XXH3_state_t,
    mover_xxh3,
    mover_xxh3_setup,
    mover_xxh3_update,
)

# Below this the work is shorter than handing the GIL over and getting it back.
cdef Py_ssize_t NOGIL_FROM = 8192

cdef uint64_t ALL = 0xFFFFFFFFFFFFFFFFULL

mover_crc_setup()
mover_crc64_setup()
mover_xxh3_setup()


cdef bytes canonical(XXH128_hash_t value):
    cdef XXH128_canonical_t out
    XXH128_canonicalFromHash(&out, value)
    return PyBytes_FromStringAndSize(<char *>out.digest, 16)


def ob_crc64(data, seed=0):
    cdef Py_buffer view
    cdef uint32_t crc = seed & 0xFFFFFFFF
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len >= NOGIL_FROM:
            with nogil:
                crc = mover_crc32c(crc, view.buf, <size_t>view.len)
        else:
            crc = mover_crc32c(crc, view.buf, <size_t>view.len)
    finally:
        PyBuffer_Release(&view)
    return crc


def crc64_xz(data, seed=0):
    cdef Py_buffer view
    cdef uint64_t crc = (<uint64_t>(seed & 0xFFFFFFFFFFFFFFFF)) ^ ALL
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len >= NOGIL_FROM:
            with nogil:
                crc = mover_crc64(crc, view.buf, <size_t>view.len)
        else:
            crc = mover_crc64(crc, view.buf, <size_t>view.len)
    finally:
        PyBuffer_Release(&view)
    return crc ^ ALL


def crc64_xz_combine(uint64_t first, uint64_t second, uint64_t length):
    return mover_crc64_combine(first, second, length)


def xxh3_128(data):
    cdef Py_buffer view
    cdef XXH128_hash_t value
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len >= NOGIL_FROM:
            with nogil:
                value = mover_xxh3(view.buf, <size_t>view.len)
        else:
            value = mover_xxh3(view.buf, <size_t>view.len)
    finally:
        PyBuffer_Release(&view)
    return canonical(value)


cdef class Xxh3_128:
    cdef XXH3_state_t *state

    def __cinit__(self):
        self.state = XXH3_createState()
        if self.state == NULL:
            raise MemoryError
        XXH3_128bits_reset(self.state)

    def __dealloc__(self):
        if self.state != NULL:
            XXH3_freeState(self.state)

    def update(self, data):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if view.len >= NOGIL_FROM:
                with nogil:
                    mover_xxh3_update(self.state, view.buf, <size_t>view.len)
            else:
                mover_xxh3_update(self.state, view.buf, <size_t>view.len)
        finally:
            PyBuffer_Release(&view)

    def digest(self):
        return canonical(XXH3_128bits_digest(self.state))


def _ob_crc64_portable(data, seed=0):
    """What runs where there is no CRC instruction; here for the tests."""
    cdef Py_buffer view
    cdef uint32_t crc = seed & 0xFFFFFFFF
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        crc = mover_crc_portable(crc, <const uint8_t *>view.buf, <size_t>view.len)
    finally:
        PyBuffer_Release(&view)
    return crc


def _crc64_xz_portable(data, seed=0):
    """What runs where there is no carry-less multiplication; here for the tests."""
    cdef Py_buffer view
    cdef uint64_t crc = (<uint64_t>(seed & 0xFFFFFFFFFFFFFFFF)) ^ ALL
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        crc = mover_crc64_portable(crc, <const uint8_t *>view.buf, <size_t>view.len)
    finally:
        PyBuffer_Release(&view)
    return crc ^ ALL
