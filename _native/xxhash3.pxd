from libc.stdint cimport uint64_t

# Header only: XXH_INLINE_ALL is defined by setup.py, so nothing is linked.
cdef extern from "xxh3.h" nogil:
    ctypedef struct XXH128_hash_t:
        pass
    ctypedef struct XXH128_canonical_t:
        unsigned char digest[16]
    ctypedef struct XXH3_state_t:
        pass
    ctypedef int XXH_errorcode

    void mover_xxh3_setup()
    XXH128_hash_t mover_xxh3(const void *data, size_t size)
    XXH_errorcode mover_xxh3_update(XXH3_state_t *state, const void *data, size_t size)
    void XXH128_canonicalFromHash(XXH128_canonical_t *canonical, XXH128_hash_t hash)
    XXH3_state_t *XXH3_createState()
    XXH_errorcode XXH3_freeState(XXH3_state_t *state)
    XXH_errorcode XXH3_128bits_reset(XXH3_state_t *state)
    XXH128_hash_t XXH3_128bits_digest(const XXH3_state_t *state)

# Of 48 bytes at a time: nothing to gain from vectors.
cdef extern from "xxhash.h" nogil:
    uint64_t XXH64(const void *data, size_t size, uint64_t seed)
