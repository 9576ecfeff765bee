cdef extern from "lz4.h" nogil:
    int LZ4_MAX_INPUT_SIZE
    int LZ4_compressBound(int size)
    int LZ4_compress_default(const char *data, char *out, int size, int room)
    int LZ4_decompress_safe(const char *data, char *out, int size, int room)
