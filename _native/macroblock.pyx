"""Macroblock verification. The contract is that of the twin, ``mover/kernel/_macroblock_py.py``."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t

from crc32c cimport mover_crc_setup
from macro_check cimport Macro, MacroVerdict

include "macro_header.pxi"

mover_crc_setup()


def macroblock_check(block):
    cdef Py_buffer view
    cdef Macro m
    cdef MacroVerdict verdict
    cdef Py_ssize_t size
    PyObject_GetBuffer(block, &view, PyBUF_SIMPLE)
    try:
        size = view.len
        m.used = 0
        m.tablet_id = 0
        m.logical_version = m.data_seq = m.data_checksum = 0
        with nogil:
            verdict = check_macro(<const uint8_t *>view.buf, <size_t>size, &m)
    finally:
        PyBuffer_Release(&view)
    return macro_header(verdict, &m, size)
