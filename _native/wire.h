/* Integers at any address in a stated byte order, and the end of what is not zero. */
#ifndef MOVER_WIRE_H
#define MOVER_WIRE_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MOVER_WIRE(bits)                                                                                             \
    static inline uint##bits##_t load_be##bits(const uint8_t *p) {                                                  \
        uint##bits##_t v;                                                                                            \
        memcpy(&v, p, sizeof v);                                                                                     \
        return be##bits##toh(v);                                                                                     \
    }                                                                                                                \
    static inline uint##bits##_t load_le##bits(const uint8_t *p) {                                                  \
        uint##bits##_t v;                                                                                            \
        memcpy(&v, p, sizeof v);                                                                                     \
        return le##bits##toh(v);                                                                                     \
    }                                                                                                                \
    static inline uint8_t *store_be##bits(uint8_t *p, uint##bits##_t v) {                                           \
        v = htobe##bits(v);                                                                                          \
        memcpy(p, &v, sizeof v);                                                                                     \
        return p + sizeof v;                                                                                         \
    }                                                                                                                \
    static inline uint8_t *store_le##bits(uint8_t *p, uint##bits##_t v) {                                           \
        v = htole##bits(v);                                                                                          \
        memcpy(p, &v, sizeof v);                                                                                     \
        return p + sizeof v;                                                                                         \
    }

MOVER_WIRE(16)
MOVER_WIRE(32)
MOVER_WIRE(64)

/* Length of p[0..n) without trailing zeros. */
static inline size_t content_end(const uint8_t *p, size_t n) {
    uint64_t a, b;
    while (n >= 16) {
        memcpy(&a, p + n - 8, 8);
        memcpy(&b, p + n - 16, 8);
        if (a | b) break;
        n -= 16;
    }
    while (n > 0 && p[n - 1] == 0) n--;
    return n;
}

#endif
