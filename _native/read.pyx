"""Reading macroblocks. The contract is that of the twin, ``mover/kernel/_read_py.py``."""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t
from posix.types cimport off_t
from posix.unistd cimport pread

from crc32c cimport mover_crc_setup
from macro_check cimport UNUSED, VALID, Macro, MacroVerdict
from xxhash3 cimport XXH128_canonical_t, XXH128_canonicalFromHash, mover_xxh3, mover_xxh3_setup

from mover.kernel.read import READ_LIMIT, BlockRead, check_read

include "macro_header.pxi"

assert READ_LIMIT < 1 << 31

mover_crc_setup()
mover_xxh3_setup()

cdef struct Job:
    Py_buffer view
    int64_t offset
    size_t length, filled
    int error
    MacroVerdict verdict
    Macro macro
    XXH128_canonical_t digest


cdef void read_one(int fd, Job *job) noexcept nogil:
    cdef uint8_t *block = <uint8_t *>job.view.buf
    cdef ssize_t count
    while job.filled < job.length:
        count = pread(fd, block + job.filled, job.length - job.filled, <off_t>(job.offset + <int64_t>job.filled))
        if count < 0:
            if errno == EINTR:
                continue
            job.error = errno
            return
        if count == 0:
            return
        job.filled += <size_t>count
    job.verdict = check_macro(block, job.length, &job.macro)
    if job.verdict == UNUSED:
        job.macro.used = 0
    if job.verdict == VALID or job.verdict == UNUSED:
        XXH128_canonicalFromHash(&job.digest, mover_xxh3(block, job.macro.used))


cdef object outcome(const Job *job):
    if job.filled < job.length:
        return BlockRead(job.error, job.filled, None, b"")
    header = macro_header(job.verdict, &job.macro, <Py_ssize_t>job.length)
    if job.verdict != VALID and job.verdict != UNUSED:
        return BlockRead(0, job.filled, header, b"")
    return BlockRead(0, job.filled, header, PyBytes_FromStringAndSize(<const char *>job.digest.digest, 16))


def read_blocks(fd, reads):
    cdef int source = fd
    cdef Py_ssize_t count, i, held = 0
    cdef Job *jobs
    reads = list(reads)
    count = len(reads)
    jobs = <Job *>PyMem_Calloc(max(count, 1), sizeof(Job))
    if jobs == NULL:
        raise MemoryError
    try:
        for i in range(count):
            offset, length, buffer = reads[i]
            PyObject_GetBuffer(buffer, &jobs[i].view, PyBUF_WRITABLE)
            held += 1
            check_read(offset, length, jobs[i].view.len)
            jobs[i].offset, jobs[i].length = offset, length
        with nogil:
            for i in range(count):
                read_one(source, &jobs[i])
        return [outcome(&jobs[i]) for i in range(count)]
    finally:
        for i in range(held):
            PyBuffer_Release(&jobs[i].view)
        PyMem_Free(jobs)
