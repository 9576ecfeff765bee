/* CRC-64/XZ (ECMA-182 reflected, 0xC96C5795D7870F42, inverted before and after): what OSS and COS say of their objects.
 *
 * x86-64 with PCLMULQDQ folds eight lanes of 16 bytes by carry-less multiplication (the method of Intel's paper "Fast CRC
 * Computation for Generic Polynomials Using PCLMULQDQ Instruction", 2009, in its reflected form) and leaves the last 16
 * bytes to the table; anything else slices by eight. The constants of the folds are computed, not copied: x^n mod P.
 */
#ifndef MOVER_CRC64_H
#define MOVER_CRC64_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MOVER_CRC64_POLY 0xC96C5795D7870F42ull

static uint64_t mover_crc64_slices[8][256];

/* Products of polynomials modulo P, both reflected: bit 63 is x^0. */
static uint64_t mover_crc64_multiply(uint64_t a, uint64_t b) {
    uint64_t product = 0;
    for (int bit = 63; bit >= 0; bit--) {
        if (a >> bit & 1)
            product ^= b;
        b = b >> 1 ^ (b & 1 ? MOVER_CRC64_POLY : 0);
    }
    return product;
}

/* x^n mod P, reflected. */
static uint64_t mover_crc64_power(uint64_t n) {
    uint64_t result = 1ull << 63, square = 1ull << 62;
    for (; n; n >>= 1) {
        if (n & 1)
            result = mover_crc64_multiply(result, square);
        square = mover_crc64_multiply(square, square);
    }
    return result;
}

/* The CRC of a and b put together, from theirs and the length of b. */
static uint64_t mover_crc64_combine(uint64_t a, uint64_t b, uint64_t length) {
    /* 8 * length overflows only for lengths that no file has, and the powers of x repeat long before. */
    return mover_crc64_multiply(a, mover_crc64_power(length * 8)) ^ b;
}

/* The register as it is, not inverted. */
static uint64_t mover_crc64_portable(uint64_t crc, const uint8_t *p, size_t n) {
    while (n >= 8) {
        uint64_t word = 0;
        for (int i = 0; i < 8; i++)
            word |= (uint64_t)p[i] << 8 * i;
        word ^= crc;
        crc = mover_crc64_slices[7][word & 0xff] ^ mover_crc64_slices[6][word >> 8 & 0xff] ^
              mover_crc64_slices[5][word >> 16 & 0xff] ^ mover_crc64_slices[4][word >> 24 & 0xff] ^
              mover_crc64_slices[3][word >> 32 & 0xff] ^ mover_crc64_slices[2][word >> 40 & 0xff] ^
              mover_crc64_slices[1][word >> 48 & 0xff] ^ mover_crc64_slices[0][word >> 56];
        p += 8;
        n -= 8;
    }
    while (n--)
        crc = mover_crc64_slices[0][(crc ^ *p++) & 0xff] ^ crc >> 8;
    return crc;
}

#if defined(__x86_64__)
static int mover_crc64_folds;         /* does this machine multiply without carry? */
static uint64_t mover_crc64_wide[2];  /* over 128 bytes: eight lanes */
static uint64_t mover_crc64_one[2];   /* over 16 bytes: one lane */

__attribute__((target("pclmul,sse4.1"))) static inline __m128i mover_crc64_fold(__m128i lane, __m128i by, __m128i next) {
    __m128i low = _mm_clmulepi64_si128(lane, by, 0x00), high = _mm_clmulepi64_si128(lane, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

__attribute__((target("pclmul,sse4.1"))) static uint64_t mover_crc64_folding(uint64_t crc, const uint8_t *p, size_t n) {
    const __m128i *at = (const __m128i *)p;
    const __m128i wide = _mm_set_epi64x((long long)mover_crc64_wide[1], (long long)mover_crc64_wide[0]);
    const __m128i one = _mm_set_epi64x((long long)mover_crc64_one[1], (long long)mover_crc64_one[0]);
    __m128i lane[8];
    for (int i = 0; i < 8; i++)
        lane[i] = _mm_loadu_si128(at + i);
    lane[0] = _mm_xor_si128(lane[0], _mm_set_epi64x(0, (long long)crc));
    at += 8;
    n -= 128;
    for (; n >= 128; n -= 128, at += 8)
        for (int i = 0; i < 8; i++)
            lane[i] = mover_crc64_fold(lane[i], wide, _mm_loadu_si128(at + i));
    for (int i = 1; i < 8; i++)
        lane[i] = mover_crc64_fold(lane[i - 1], one, lane[i]);
    __m128i rest = lane[7];
    for (; n >= 16; n -= 16, at++)
        rest = mover_crc64_fold(rest, one, _mm_loadu_si128(at));
    uint8_t last[16];
    _mm_storeu_si128((__m128i *)last, rest);
    return mover_crc64_portable(mover_crc64_portable(0, last, 16), (const uint8_t *)at, n);
}
#endif

/* The register as it is, not inverted. */
static uint64_t mover_crc64(uint64_t crc, const void *data, size_t n) {
#if defined(__x86_64__)
    if (n >= 256 && mover_crc64_folds)
        return mover_crc64_folding(crc, (const uint8_t *)data, n);
#endif
    return mover_crc64_portable(crc, (const uint8_t *)data, n);
}

static void mover_crc64_setup(void) {
    for (unsigned byte = 0; byte < 256; byte++) {
        uint64_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? MOVER_CRC64_POLY : 0);
        mover_crc64_slices[0][byte] = crc;
    }
    for (int slice = 1; slice < 8; slice++)
        for (unsigned byte = 0; byte < 256; byte++) {
            uint64_t crc = mover_crc64_slices[slice - 1][byte];
            mover_crc64_slices[slice][byte] = mover_crc64_slices[0][crc & 0xff] ^ crc >> 8;
        }
#if defined(__x86_64__)
    /* A lane's low half stands for higher powers than its high half, by 64; a reflected product is short of one. */
    mover_crc64_wide[0] = mover_crc64_power(128 * 8 + 64 - 1);
    mover_crc64_wide[1] = mover_crc64_power(128 * 8 - 1);
    mover_crc64_one[0] = mover_crc64_power(16 * 8 + 64 - 1);
    mover_crc64_one[1] = mover_crc64_power(16 * 8 - 1);
    mover_crc64_folds = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
#endif
}

#endif
