/* XXH3-128 compiled for AVX2; called after a look at the CPU, see xxh3.h. */
#if defined(__x86_64__)
#pragma GCC target("avx2")
#include "xxh3.h"

XXH128_hash_t mover_xxh3_avx2(const void *data, size_t size) { return XXH3_128bits(data, size); }

XXH_errorcode mover_xxh3_update_avx2(XXH3_state_t *state, const void *data, size_t size) {
    return XXH3_128bits_update(state, data, size);
}
#endif
