"""Builds the native kernel: ``_native/<name>.pyx`` becomes ``mover._native.<name>``.

Environment:
    MOVER_PURE=1   build no extension; the pure-Python twins are used.
    MOVER_DEBUG=1  linetrace, annotated HTML, bounds checks, no optimisation.
    CC, CFLAGS ... as setuptools has them; headers outside the default path go in through CFLAGS=-I... .

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("_native")

# Libraries that each module links with; xxhash is compiled in from its header.
MODULES = {
    "checksum": [],
    "clog": ["zstd", "lz4", "pthread"],
    "codec": ["zstd", "lz4", "pthread"],
    "entries": [],
    "macroblock": [],
    "pack": ["zstd", "lz4", "pthread"],
    "palf": [],
    "read": [],
    "unpack": ["zstd", "lz4", "pthread"],
}
C_SOURCES = {"checksum": ["xxh3_avx2.c"], "read": ["xxh3_avx2.c"], "unpack": ["xxh3_avx2.c"]}
# Headers, and the Debian packages that have them.
PACKAGES = {
    "Python.h": "python3-dev",
    "zstd.h": "libzstd-dev",
    "lz4.h": "liblz4-dev",
    "xxhash.h": "libxxhash-dev",
}


def switched_on(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def missing_headers() -> list[str]:
    """Headers the compiler does not find. A missing compiler is reported as such at once."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    flags = [*shlex.split(os.environ.get("CFLAGS", "")), f"-I{sysconfig.get_path('include')}"]
    missing = []
    for header in PACKAGES:
        with tempfile.TemporaryDirectory() as scratch:
            probe = Path(scratch, "probe.c")
            probe.write_text(f"#include <stddef.h>\n#include <{header}>\n")
            try:
                done = subprocess.run(
                    [*compiler, *flags, "-fsyntax-only", str(probe)], capture_output=True, check=False
                )
            except OSError as error:
                raise SystemExit(
                    f"mover: no C compiler ({compiler[0]}: {error.strerror}).\n"
                    "Install one (Debian: apt-get install gcc), or set MOVER_PURE=1 for the slower pure-Python kernel."
                ) from None
        if done.returncode:
            missing.append(header)
    return missing


def extensions() -> list[Extension]:
    if switched_on("MOVER_PURE"):
        return []
    if platform.system() != "Linux":
        print("mover: the native kernel is built on Linux only; the pure-Python kernel is used", file=sys.stderr)
        return []
    missing = missing_headers()
    if missing:
        packages = " ".join(PACKAGES[header] for header in missing)
        raise SystemExit(
            f"mover: C headers are missing: {', '.join(missing)}.\n"
            f"Install them (Debian: apt-get install {packages}), or set MOVER_PURE=1 for the slower pure-Python kernel."
        )
    from Cython.Build import cythonize

    debug = switched_on("MOVER_DEBUG")
    macros = [("XXH_INLINE_ALL", "1"), ("_GNU_SOURCE", "1")]
    flags = ["-Wall", "-Wno-unused-function", "-std=gnu11"]
    if debug:
        macros.append(("CYTHON_TRACE", "1"))
        flags += ["-O0", "-g"]
    else:
        flags.append("-O3")
    modules = [
        Extension(
            f"mover._native.{name}",
            [str(SOURCES / f"{name}.pyx"), *(str(SOURCES / extra) for extra in C_SOURCES.get(name, ()))],
            include_dirs=[str(SOURCES)],
            libraries=libraries,
            define_macros=macros,
            extra_compile_args=flags,
            depends=[str(path) for path in sorted(SOURCES.glob("*.[hp]*")) if path.suffix in (".h", ".pxd", ".pxi")],
        )
        for name, libraries in MODULES.items()
    ]
    return cythonize(
        modules,
        include_path=[str(SOURCES)],
        build_dir="build/cython-debug" if debug else "build/cython",
        annotate=debug,
        force=debug,
        compiler_directives={
            "language_level": "3",
            "embedsignature": False,
            "boundscheck": debug,
            "wraparound": False,
            "cdivision": True,
            "linetrace": debug,
        },
    )


# Objects of a debug and of a release build go by the same name: never reuse one for the other.
setup(ext_modules=extensions(), options={"build_ext": {"force": True}})
