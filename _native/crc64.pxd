from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

cdef extern from "crc64.h" nogil:
    void mover_crc64_setup()
    uint64_t mover_crc64(uint64_t crc, const void *data, size_t n)
    uint64_t mover_crc64_portable(uint64_t crc, const uint8_t *p, size_t n)
    uint64_t mover_crc64_combine(uint64_t a, uint64_t b, uint64_t length)
