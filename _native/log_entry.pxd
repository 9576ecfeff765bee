"""The header of a 3.1 log entry, as far as checking it needs: the hash of the PG key and the header's checksum.

Layout and image are described in mover/kernel/clog.py and mover/media/log_entry.py.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from crc32c cimport mover_crc32c
from wire cimport load_be32, load_be64, store_le16, store_le32, store_le64

cdef enum:
    LOG_ENTRY_HEADER = 105
    LOG_ENTRY_IMAGE = 120
    LOG_ENTRY_MAGIC = 0x4552
    LOG_ENTRY_VERSION = 1


cdef inline uint64_t log_key_mix(uint64_t value, bint whole, uint64_t seed) noexcept nogil:
    """MurmurHash64A of 8 bytes, or of 4 when not ``whole``."""
    cdef uint64_t m = <uint64_t>0xC6A4A7935BD1E995
    cdef uint64_t h = seed ^ ((8 if whole else 4) * m)
    if whole:
        value *= m
        value ^= value >> 47
        value *= m
        h = (h ^ value) * m
    else:
        h = (h ^ value) * m
    h ^= h >> 47
    h *= m
    return h ^ (h >> 47)


cdef inline uint64_t log_key_hash(const uint8_t *key) noexcept nogil:
    """The hash of a PG key (16 bytes, big-endian) that is part of the header's image."""
    cdef uint64_t h = log_key_mix(load_be64(key), True, 0)
    h = log_key_mix(load_be32(key + 8), False, h)
    return log_key_mix(load_be32(key + 12), False, h)


cdef inline uint32_t log_header_checksum(const uint8_t *head, uint64_t key_hash, uint64_t submit_ts) noexcept nogil:
    """What the header checksum of the 105 bytes at ``head`` must be, with this submit timestamp."""
    cdef uint8_t image[LOG_ENTRY_IMAGE]
    cdef uint8_t *p = image
    cdef uint64_t server = load_be64(head + 57)
    p = store_le16(p, LOG_ENTRY_MAGIC)
    p = store_le16(p, LOG_ENTRY_VERSION)
    p = store_le32(p, load_be32(head + 4))
    p = store_le64(p, load_be64(head + 8))
    p = store_le32(p, load_be32(head + 16))
    p = store_le32(p, load_be32(head + 20))
    p = store_le64(p, key_hash)
    p = store_le64(p, load_be64(head + 24))
    p = store_le64(p, load_be64(head + 32))
    p = store_le64(p, load_be64(head + 40))
    p = store_le64(p, load_be64(head + 48))
    p = store_le32(p, 4)
    p = store_le32(p, <uint32_t>(server >> 32))
    p = store_le64(p, 0)
    p = store_le32(p, 0)
    p = store_le32(p, <uint32_t>server)
    p = store_le64(p, load_be64(head + 65))
    p = store_le64(p, submit_ts)
    p = store_le64(p, load_be64(head + 81))
    p = store_le64(p, load_be64(head + 89))
    return mover_crc32c(0, image, LOG_ENTRY_IMAGE)
