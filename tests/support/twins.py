"""The two kernels side by side, whatever MOVER_PURE says."""

from __future__ import annotations

import importlib
from functools import partial
from types import SimpleNamespace

from mover.errors import MoverError

_NAMES = {
    "checksum": ("ob_crc64", "crc64_xz", "crc64_xz_combine", "xxh3_128", "Xxh3_128"),
    "clog": ("clog_walk", "clog_gather"),
    "codec": ("zstd_compress", "zstd_decompress", "lz4_compress", "lz4_decompress", "encode_vi64", "decode_vi64"),
    "entries": ("walk_entries",),
    "macroblock": ("macroblock_check",),
    "pack": ("pack_frames",),
    "palf": ("palf_walk", "palf_frame_groups", "palf_unframe"),
    "read": ("read_blocks",),
    "unpack": ("unpack_frames",),
}


def _load(pattern: str) -> SimpleNamespace:
    modules = {name: importlib.import_module(pattern.format(name)) for name in _NAMES}
    twin = SimpleNamespace(**{f: getattr(modules[name], f) for name, functions in _NAMES.items() for f in functions})
    twin.framed = partial(_framed, twin.palf_frame_groups)
    return twin


def _framed(frame, buf, lsn, groups, *args, **kwargs):
    """``palf_frame_groups`` into memory of its own: the payload instead of its length."""
    room = bytearray(b"\xa5" * (len(buf) + 32 * len(groups) + 64))
    length, accum, count = frame(room, buf, lsn, groups, *args, **kwargs)
    assert room[length:] == b"\xa5" * (len(room) - length), "written behind the payload"
    return bytes(room[:length]), accum, count


PURE = _load("mover.kernel._{}_py")
try:
    NATIVE: SimpleNamespace | None = _load("mover._native.{}")
except ModuleNotFoundError:
    NATIVE = None

TWINS = {"pure": PURE} | ({"native": NATIVE} if NATIVE else {})


def same(function: str, *args, **kwargs):
    """Call ``function`` of both twins: they must agree on the result, or on the error and its words.

    Returns the result, or the error. Errors other than our own and ValueError are let through.
    """
    outcomes = []
    for twin in TWINS.values():
        try:
            outcomes.append(getattr(twin, function)(*args, **kwargs))
        except (MoverError, ValueError) as error:
            outcomes.append(error)
    first, last = outcomes[0], outcomes[-1]
    if isinstance(first, Exception) or isinstance(last, Exception):
        assert type(first) is type(last), (first, last)
        # zstd and lz4 word their own errors by version; what we say is the same.
        if not str(first).startswith(("zstd", "lz4")):
            assert str(first) == str(last)
            assert getattr(first, "where", None) == getattr(last, "where", None)
    else:
        assert first == last
    return first
