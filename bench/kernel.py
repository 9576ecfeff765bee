"""Throughput of the kernel on this machine, one thread, both twins: ``python bench/kernel.py [--json]``."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from palf_log import LogWriter
from twins import PURE, TWINS

BLOCK = 2 << 20
WORDS = [b"archive", b"block", b"commit", b"epoch", b"frame", b"group", b"index", b"macro", b"round", b"tenant"]


def rows() -> bytes:
    """A block like the engine's without its own compression: keys, some words, some numbers."""
    rng = random.Random(1)
    out = bytearray()
    while len(out) < BLOCK:
        out += rng.getrandbits(32).to_bytes(8, "big") + rng.randbytes(12)
        out += b" ".join(rng.choices(WORDS, k=12)) + str(rng.random()).encode()
    return bytes(out[:BLOCK])


def seconds(call: Callable[[], object], at_least: float) -> float:
    """Median time of one call, over rounds of together ``at_least`` seconds."""
    call()
    times: list[float] = []
    while sum(times) < at_least:
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def work() -> dict[str, tuple[int, Callable[[object], Callable[[], object]]]]:
    """name: (bytes per call, a function that makes the call for one twin)."""
    data = rows()
    log = LogWriter()
    while len(log.data) < 8 << 20:
        log.group([(len(log.data) + n, data[n * 4096 : n * 4096 + 8000]) for n in range(8)])
    stream = bytes(log.data)
    groups = PURE.palf_walk(stream, 0).groups
    payload, _, _ = PURE.palf_frame_groups(stream, 0, groups, bytes(16), 1, 0)
    table: dict[str, tuple[int, Callable[[object], Callable[[], object]]]] = {
        "ob_crc64": (BLOCK, lambda k: lambda: k.ob_crc64(data)),
        "xxh3_128": (BLOCK, lambda k: lambda: k.xxh3_128(data)),
        "palf_walk": (len(stream), lambda k: lambda: k.palf_walk(stream, 0)),
        "palf_frame_groups": (len(payload), lambda k: lambda: k.palf_frame_groups(stream, 0, groups, bytes(16), 1, 0)),
        "palf_unframe": (len(payload), lambda k: lambda: k.palf_unframe(payload)),
        "lz4_compress": (BLOCK, lambda k: lambda: k.lz4_compress(data)),
    }
    for level in (-1, 1, 3):
        table[f"zstd {level}"] = (BLOCK, lambda k, level=level: lambda: k.zstd_compress(data, level))
    stored = PURE.zstd_compress(data, 1)
    table["zstd decompress"] = (BLOCK, lambda k: lambda: k.zstd_decompress(stored, BLOCK))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each row and twin")
    arguments = parser.parse_args()
    results = []
    for name, (size, make) in work().items():
        row: dict[str, object] = {"work": name}
        for twin, kernel in TWINS.items():
            row[twin] = {"gb_per_s": round(size / seconds(make(kernel), arguments.seconds) / 1e9, 3)}
        results.append(row)
    if arguments.json:
        print(json.dumps({"rows": results}))
        return
    for row in results:
        rates = "  ".join(f"{twin} {row[twin]['gb_per_s']:8.3f} GB/s" for twin in TWINS)  # type: ignore[index]
        print(f"{row['work']:<18} {rates}")


if __name__ == "__main__":
    main()
