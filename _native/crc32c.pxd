from libc.stdint cimport uint8_t, uint32_t

cdef extern from "crc32c.h" nogil:
    uint32_t mover_crc32c(uint32_t seed, const void *data, size_t size)
    uint32_t mover_crc_portable(uint32_t seed, const uint8_t *data, size_t size)
    uint32_t mover_crc_join(uint32_t first, uint32_t second, size_t length)
    void mover_crc_setup()
