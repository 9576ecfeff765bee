/* XXH3-128 with the widest vectors this machine has. Headers only compile for the baseline, SSE2, which is a third of
 * the speed; xxh3_avx2.c is the same header compiled once more for AVX2. The states of the two are interchangeable. */
#ifndef MOVER_XXH3_H
#define MOVER_XXH3_H

#include <xxhash.h>

#if defined(__x86_64__)
XXH128_hash_t mover_xxh3_avx2(const void *data, size_t size);
XXH_errorcode mover_xxh3_update_avx2(XXH3_state_t *state, const void *data, size_t size);

static int mover_xxh3_wide;

static inline void mover_xxh3_setup(void) { mover_xxh3_wide = __builtin_cpu_supports("avx2"); }

static inline XXH128_hash_t mover_xxh3(const void *data, size_t size) {
    return mover_xxh3_wide ? mover_xxh3_avx2(data, size) : XXH3_128bits(data, size);
}

static inline XXH_errorcode mover_xxh3_update(XXH3_state_t *state, const void *data, size_t size) {
    return mover_xxh3_wide ? mover_xxh3_update_avx2(state, data, size) : XXH3_128bits_update(state, data, size);
}
#else
static inline void mover_xxh3_setup(void) {}
#define mover_xxh3 XXH3_128bits
#define mover_xxh3_update XXH3_128bits_update
#endif
#endif
