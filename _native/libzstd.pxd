cdef extern from "zstd_contexts.h" nogil:
    ctypedef struct ZSTD_CCtx:
        pass
    ctypedef struct ZSTD_DCtx:
        pass
    unsigned long long ZSTD_CONTENTSIZE_UNKNOWN
    unsigned long long ZSTD_CONTENTSIZE_ERROR

    size_t ZSTD_compressBound(size_t size)
    size_t ZSTD_compressCCtx(ZSTD_CCtx *context, void *out, size_t room, const void *data, size_t size, int level)
    size_t ZSTD_decompressDCtx(ZSTD_DCtx *context, void *out, size_t room, const void *data, size_t size)
    unsigned long long ZSTD_getFrameContentSize(const void *data, size_t size)
    size_t ZSTD_findFrameCompressedSize(const void *data, size_t size)
    unsigned ZSTD_isError(size_t code)
    const char *ZSTD_getErrorName(size_t code)

    int mover_zstd_setup()
    ZSTD_CCtx *mover_zstd_compressor()
    ZSTD_DCtx *mover_zstd_decompressor()
    void *mover_zstd_scratch(size_t size)
