"""The two kernels side by side, whatever MOVER_PURE says."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

from mover.errors import MoverError

_NAMES = {
    "checksum": ("ob_crc64", "crc64_xz", "crc64_xz_combine", "xxh3_128", "Xxh3_128"),
    "codec": ("zstd_compress", "zstd_decompress", "lz4_compress", "lz4_decompress", "encode_vi64", "decode_vi64"),
    "macroblock": ("macroblock_check",),
    "pack": ("pack_frames",),
    "palf": ("palf_walk", "palf_frame_groups", "palf_unframe"),
    "unpack": ("unpack_frames",),
}


def _load(pattern: str) -> SimpleNamespace:
    modules = {name: importlib.import_module(pattern.format(name)) for name in _NAMES}
    return SimpleNamespace(**{f: getattr(modules[name], f) for name, functions in _NAMES.items() for f in functions})


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
