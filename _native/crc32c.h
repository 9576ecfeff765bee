/* Raw CRC-32C (Castagnoli, reflected 0x82F63B78): no inversion before or after, so a zero seed over zeros is zero.
 *
 * Three implementations behind one function pointer, chosen once when a module is loaded:
 *   x86-64 with SSE4.2 and AArch64 with the CRC extension: the instruction has a latency of three cycles and a
 *   throughput of one, so three independent streams run side by side and are joined by table;
 *   anything else: slicing by eight.
 */
#ifndef MOVER_CRC32C_H
#define MOVER_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define MOVER_CRC_HARDWARE __attribute__((target("sse4.2")))
#define MOVER_CRC_STEP8(crc, word) _mm_crc32_u64((crc), (word))
#define MOVER_CRC_STEP1(crc, byte) _mm_crc32_u8((uint32_t)(crc), (byte))
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#ifdef __ARM_FEATURE_CRC32
#include <arm_acle.h>
#define MOVER_CRC_HARDWARE
#define MOVER_CRC_STEP8(crc, word) __crc32cd((uint32_t)(crc), (word))
#define MOVER_CRC_STEP1(crc, byte) __crc32cb((uint32_t)(crc), (byte))
#else
/* The compiler's baseline has no CRC: enable it for these functions only, and ask the kernel before calling them. */
static inline uint32_t mover_arm_crc8(uint32_t crc, uint64_t word) {
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
    return crc;
}
static inline uint32_t mover_arm_crc1(uint32_t crc, uint8_t byte) {
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(byte));
    return crc;
}
#define MOVER_CRC_HARDWARE
#define MOVER_CRC_STEP8(crc, word) mover_arm_crc8((uint32_t)(crc), (word))
#define MOVER_CRC_STEP1(crc, byte) mover_arm_crc1((uint32_t)(crc), (byte))
#endif
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

#define MOVER_CRC_POLY 0x82F63B78u
#define MOVER_CRC_LONG 8192  /* bytes per stream while much is left: joining costs nothing beside it */
#define MOVER_CRC_SHORT 256  /* bytes per stream for the rest */

typedef uint32_t (*mover_crc_fn)(uint32_t, const uint8_t *, size_t);

static uint32_t mover_crc_slices[8][256];

static uint32_t mover_crc_portable(uint32_t crc, const uint8_t *p, size_t n) {
    while (n >= 8) {
        uint32_t low = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
        crc = mover_crc_slices[7][low & 0xff] ^ mover_crc_slices[6][low >> 8 & 0xff] ^
              mover_crc_slices[5][low >> 16 & 0xff] ^ mover_crc_slices[4][low >> 24] ^ mover_crc_slices[3][p[4]] ^
              mover_crc_slices[2][p[5]] ^ mover_crc_slices[1][p[6]] ^ mover_crc_slices[0][p[7]];
        p += 8;
        n -= 8;
    }
    while (n--) crc = crc >> 8 ^ mover_crc_slices[0][(crc ^ *p++) & 0xff];
    return crc;
}

/* x^(8 * 2^k) modulo the polynomial, reflected. */
static uint32_t mover_crc_powers[64];

/* The product of two polynomials modulo ours, reflected: bit 31 is x^0. */
static inline uint32_t mover_crc_multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
        if (a & bit) product ^= b;
        b = b >> 1 ^ (b & 1 ? MOVER_CRC_POLY : 0);
    }
    return product;
}

static void mover_crc_fill_powers(void) {
    uint32_t power = 1u << 30; /* x */
    for (int k = -3; k < 64; k++) {
        if (k >= 0) mover_crc_powers[k] = power;
        power = mover_crc_multiply(power, power);
    }
}

/* The CRC of A and B behind each other from the CRC of each, by the length of B; as zlib's crc32_combine. */
static inline uint32_t mover_crc_join(uint32_t first, uint32_t second, size_t length) {
    for (int k = 0; length != 0; k++, length >>= 1)
        if (length & 1) first = mover_crc_multiply(mover_crc_powers[k], first);
    return first ^ second;
}

static void mover_crc_fill_slices(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = b;
        for (int bit = 0; bit < 8; bit++) c = c >> 1 ^ (c & 1 ? MOVER_CRC_POLY : 0);
        mover_crc_slices[0][b] = c;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++) {
            uint32_t c = mover_crc_slices[k - 1][b];
            mover_crc_slices[k][b] = c >> 8 ^ mover_crc_slices[0][c & 0xff];
        }
}

#ifdef MOVER_CRC_HARDWARE

/* Effect of MOVER_CRC_LONG or _SHORT zero bytes on a CRC, by byte of the CRC: a CRC is linear in its seed. */
static uint32_t mover_crc_skip_long[4][256];
static uint32_t mover_crc_skip_short[4][256];

static inline uint32_t mover_crc_skip(uint32_t table[4][256], uint32_t crc) {
    return table[0][crc & 0xff] ^ table[1][crc >> 8 & 0xff] ^ table[2][crc >> 16 & 0xff] ^ table[3][crc >> 24];
}

MOVER_CRC_HARDWARE static void mover_crc_fill_skip(uint32_t table[4][256], size_t bytes) {
    uint32_t basis[32];
    for (int bit = 0; bit < 32; bit++) {
        uint64_t c = (uint64_t)1 << bit;
        for (size_t i = 0; i < bytes / 8; i++) c = MOVER_CRC_STEP8(c, (uint64_t)0);
        basis[bit] = (uint32_t)c;
    }
    for (int k = 0; k < 4; k++)
        for (int b = 0; b < 256; b++) {
            uint32_t c = 0;
            for (int bit = 0; bit < 8; bit++)
                if (b >> bit & 1) c ^= basis[8 * k + bit];
            table[k][b] = c;
        }
}

static inline uint64_t mover_crc_load8(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

/* Three streams of `lane` bytes while at least that many are left. */
MOVER_CRC_HARDWARE static inline uint32_t mover_crc_lanes(uint32_t crc, const uint8_t **at, size_t *left, size_t lane,
                                                          uint32_t skip[4][256]) {
    const uint8_t *p = *at;
    size_t n = *left;
    while (n >= 3 * lane) {
        uint64_t a = crc, b = 0, c = 0;
        for (const uint8_t *end = p + lane; p < end; p += 8) {
            a = MOVER_CRC_STEP8(a, mover_crc_load8(p));
            b = MOVER_CRC_STEP8(b, mover_crc_load8(p + lane));
            c = MOVER_CRC_STEP8(c, mover_crc_load8(p + 2 * lane));
        }
        crc = mover_crc_skip(skip, (uint32_t)a) ^ (uint32_t)b;
        crc = mover_crc_skip(skip, crc) ^ (uint32_t)c;
        p += 2 * lane;
        n -= 3 * lane;
    }
    *at = p;
    *left = n;
    return crc;
}

MOVER_CRC_HARDWARE static uint32_t mover_crc_hardware(uint32_t crc, const uint8_t *p, size_t n) {
    if (n >= 3 * MOVER_CRC_SHORT) {
        crc = mover_crc_lanes(crc, &p, &n, MOVER_CRC_LONG, mover_crc_skip_long);
        crc = mover_crc_lanes(crc, &p, &n, MOVER_CRC_SHORT, mover_crc_skip_short);
    }
    uint64_t wide = crc;
    while (n >= 8) {
        wide = MOVER_CRC_STEP8(wide, mover_crc_load8(p));
        p += 8;
        n -= 8;
    }
    crc = (uint32_t)wide;
    while (n--) crc = MOVER_CRC_STEP1(crc, *p++);
    return crc;
}

static int mover_crc_have_hardware(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("sse4.2");
#else
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#endif
}
#endif /* MOVER_CRC_HARDWARE */

static mover_crc_fn mover_crc_best = mover_crc_portable;

/* Each extension module that includes this header calls it once, at import and so under the GIL. */
static void mover_crc_setup(void) {
    mover_crc_fill_slices();
    mover_crc_fill_powers();
#ifdef MOVER_CRC_HARDWARE
    if (mover_crc_have_hardware()) {
        mover_crc_fill_skip(mover_crc_skip_long, MOVER_CRC_LONG);
        mover_crc_fill_skip(mover_crc_skip_short, MOVER_CRC_SHORT);
        mover_crc_best = mover_crc_hardware;
    }
#endif
}

static inline uint32_t mover_crc32c(uint32_t seed, const void *data, size_t size) {
    return mover_crc_best(seed, (const uint8_t *)data, size);
}

#endif
