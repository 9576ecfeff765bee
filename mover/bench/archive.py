"""``mover bench archive``: how far behind the log the archive is, and what following it costs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from mover.bench.compare import Say, alone
from mover.bench.image import StoreImage
from mover.bench.measure import Sample
from mover.bench.peers import Peers
from mover.bench.place import Options, Place, open_place, run_worker, scratch_directory

RATES = (20, 60, 100)  # MB of redo per second
_GOAL_OF, _GOAL_LAG, _GOAL_CORE = (60, "rows", "file"), 1.0, 0.08
_KINDS = {"rows": True, "incompressible": False}


def archive_rows(options: Options, peers: Peers, say: Say) -> list[dict[str, Any]]:
    """Redo at steady rates into a log that the archiver follows; rows that compress, and at one rate bytes that do not.

    Each run takes ``options.seconds``. Lag is that of every group of the log, from its commit until a published
    checkpoint covers it; of several runs the worst counts.
    """
    rows: list[dict[str, Any]] = []
    works = [(rate, "rows") for rate in options.rates] + [(options.rates[len(options.rates) // 2], "incompressible")]
    with open_place(options, peers) as place:
        for rate, kind in works:
            size = max(1 << 20, int(rate * 1e6 * options.seconds))
            name = f"archive at {rate:g} MB/s of redo ({kind}) to {place.name}"
            samples = []
            for turn in range(options.pairs):
                with scratch_directory(options, size) as directory:
                    image = StoreImage(
                        directory / "store",
                        "incompressible",
                        1,
                        log_bytes=size,
                        rows=_KINDS[kind],
                        log_rate=rate * 1e6,
                    )
                    sample = _follow(place, image, rate)
                samples.append(sample)
                told = sample.told
                say(
                    f"{name}: {turn + 1}/{options.pairs}: lag p50 {told['lag_p50']:.2f} s, p99 {told['lag_p99']:.2f} s,"
                    f" {_core(sample):.1%} of a core"
                )
            rows.append(_row(name, samples, goal=(rate, kind, place.name) == _GOAL_OF))
    return rows


def _follow(place: Place, image: StoreImage, rate: float) -> Sample:
    options, base = place.options, image.paths.base
    settings = {
        "memory": options.memory,
        "workers": options.workers,
        "concurrency": options.concurrency,
        "flush_interval": options.flush_interval,
        "compression": options.compression,
    }
    state = base.parent / "state"
    job = {"do": "follow", "base": str(base), "state": str(state), "rate": rate * 1e6, "settings": settings}
    with place.fresh(base.parent) as url:
        return run_worker(base.parent, job, {}, url)


def _core(sample: Sample) -> float:
    """CPU seconds per second while the log was followed."""
    return float(sample.told["cpu_seconds"]) / float(sample.told["seconds"])


def _row(name: str, samples: Sequence[Sample], *, goal: bool) -> dict[str, Any]:
    p50 = statistics.median(sample.told["lag_p50"] for sample in samples)
    p99 = max(sample.told["lag_p99"] for sample in samples)
    core = statistics.median(_core(sample) for sample in samples)
    per_gb = statistics.median(sample.told["cpu_seconds"] / sample.bytes_in * 1e9 for sample in samples)
    facts: dict[str, Any] = {}
    if goal:
        target = f"lag p99 < {_GOAL_LAG:g} s, CPU < {_GOAL_CORE:.0%} of a core"
        facts = {"target": target, "met": p99 < _GOAL_LAG and core < _GOAL_CORE}
    return alone(
        name,
        "archiver",
        samples,
        f"lag p50 {p50:.2f} s, p99 {p99:.2f} s; {core:.1%} of a core, {per_gb:.2f} CPU-s/GB",
        lag={"p50": p50, "p99": p99, "max": max(sample.told["lag_max"] for sample in samples)},
        core=core,
        cpu_s_per_gb_of_log=per_gb,
        **facts,
    )
