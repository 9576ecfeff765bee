/* One zstd compression and one decompression context and one scratch buffer per thread, freed when the thread ends. */
#ifndef MOVER_ZSTD_CONTEXTS_H
#define MOVER_ZSTD_CONTEXTS_H

#include <pthread.h>
#include <stdlib.h>
#include <zstd.h>

typedef struct {
    ZSTD_CCtx *compress;
    ZSTD_DCtx *decompress;
    void *scratch;
    size_t room; /* of the scratch buffer */
} mover_zstd_contexts;

static pthread_key_t mover_zstd_key;

static void mover_zstd_free(void *held) {
    mover_zstd_contexts *contexts = held;
    ZSTD_freeCCtx(contexts->compress);
    ZSTD_freeDCtx(contexts->decompress);
    free(contexts->scratch);
    free(contexts);
}

/* Once per process, at import and so under the GIL. 0 on success. */
static int mover_zstd_setup(void) { return pthread_key_create(&mover_zstd_key, mover_zstd_free); }

static mover_zstd_contexts *mover_zstd_mine(void) {
    mover_zstd_contexts *contexts = pthread_getspecific(mover_zstd_key);
    if (contexts == NULL) {
        contexts = calloc(1, sizeof *contexts);
        if (contexts != NULL && pthread_setspecific(mover_zstd_key, contexts) != 0) {
            free(contexts);
            contexts = NULL;
        }
    }
    return contexts;
}

/* NULL when there is no memory. */
static ZSTD_CCtx *mover_zstd_compressor(void) {
    mover_zstd_contexts *contexts = mover_zstd_mine();
    if (contexts == NULL) return NULL;
    if (contexts->compress == NULL) contexts->compress = ZSTD_createCCtx();
    return contexts->compress;
}

static ZSTD_DCtx *mover_zstd_decompressor(void) {
    mover_zstd_contexts *contexts = mover_zstd_mine();
    if (contexts == NULL) return NULL;
    if (contexts->decompress == NULL) contexts->decompress = ZSTD_createDCtx();
    return contexts->decompress;
}

/* At least size bytes whose content is whatever it was, until the thread asks again. NULL when there is no memory. */
static void *mover_zstd_scratch(size_t size) {
    mover_zstd_contexts *contexts = mover_zstd_mine();
    if (contexts == NULL) return NULL;
    if (contexts->room < size) {
        free(contexts->scratch);
        contexts->scratch = malloc(size);
        contexts->room = contexts->scratch == NULL ? 0 : size;
    }
    return contexts->scratch;
}

#endif
