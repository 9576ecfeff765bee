from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "wire.h" nogil:
    uint16_t load_be16(const uint8_t *p)
    uint32_t load_be32(const uint8_t *p)
    uint64_t load_be64(const uint8_t *p)
    uint16_t load_le16(const uint8_t *p)
    uint32_t load_le32(const uint8_t *p)
    uint64_t load_le64(const uint8_t *p)
    # Each store returns the address behind what it wrote.
    uint8_t *store_be16(uint8_t *p, uint16_t v)
    uint8_t *store_be32(uint8_t *p, uint32_t v)
    uint8_t *store_be64(uint8_t *p, uint64_t v)
    uint8_t *store_le16(uint8_t *p, uint16_t v)
    uint8_t *store_le32(uint8_t *p, uint32_t v)
    uint8_t *store_le64(uint8_t *p, uint64_t v)
    size_t content_end(const uint8_t *p, size_t n)
