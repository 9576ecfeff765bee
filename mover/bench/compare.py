"""Two or more sides doing the same work in turn, and what comes of it: medians, spread, ratios, targets met or not."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mover.bench.measure import Sample

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Goal:
    """What mover is to reach against one peer: ratios mover / peer, in pairs of runs on one machine."""

    rate: float | None = None  # GB/s at least so many times the peer's
    cost: float | None = None  # CPU-s/GB at most so many times the peer's
    time: float | None = None  # seconds at most this share of the peer's
    read: float | None = None  # bytes read at most this share of the peer's

    def __str__(self) -> str:
        parts = [f"GB/s >= {self.rate:g}x"] if self.rate is not None else []
        parts += [f"CPU <= {self.cost:g}x"] if self.cost is not None else []
        parts += [f"time <= {self.time:.0%}"] if self.time is not None else []
        parts += [f"bytes read <= {self.read:.0%}"] if self.read is not None else []
        return ", ".join(parts)

    def met(self, ratio: Mapping[str, Any]) -> bool:
        """Whether the ratios of a row reach it; one that was not measured does not."""
        high, none = float("inf"), 0.0
        return (
            (self.rate is None or ratio.get("gb_per_s", none) >= self.rate)
            and (self.cost is None or ratio.get("cpu", high) <= self.cost)
            and (self.time is None or ratio.get("time", high) <= self.time)
            and (self.read is None or ratio.get("bytes_read", high) <= self.read)
        )


@dataclass(frozen=True, slots=True)
class Side:
    """One contestant: ``run`` does the work once, and puts things back as they were."""

    name: str
    run: Callable[[], Sample]
    goal: Goal | None = None  # of mover against this peer


@dataclass(frozen=True, slots=True)
class Work:
    """Something to do. ``steady``: the start of the processes is left out, because the work is a loop in memory."""

    name: str
    mover: Side
    peers: Sequence[Side]
    steady: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def compare(work: Work, *, pairs: int, warm_up: int, say: Say) -> list[dict[str, Any]]:
    """Run the sides in turn (A B A B, with more peers A B C A B C) and make one row per peer.

    Args:
        pairs: counted rounds; ``warm_up`` rounds go before them and do not count.
        say: told one line per run, for people.

    Returns:
        Rows as in ``mover bench --json``. Rates and costs are medians; a ratio is the median of the ratios in each
        round, so what slows the machine for a minute slows both sides of it. Without peers: one row, ``peer`` None.
    """
    sides = [work.mover, *work.peers]
    samples: dict[int, list[Sample]] = {number: [] for number in range(len(sides))}
    for turn in range(warm_up + pairs):
        for number, side in enumerate(sides):
            sample = side.run()
            label = "warm-up" if turn < warm_up else f"{turn - warm_up + 1}/{pairs}"
            say(
                f"{work.name}: {side.name} {label}: {sample.rate(steady=work.steady):.2f} GB/s, "
                f"{sample.cost(steady=work.steady):.2f} CPU-s/GB"
            )
            if turn >= warm_up:
                samples[number].append(sample)
    ours = samples[0]
    if not work.peers:
        return [_row(work, ours, None, [])]
    return [_row(work, ours, peer, samples[number]) for number, peer in enumerate(work.peers, 1)]


def _row(work: Work, ours: Sequence[Sample], peer: Side | None, theirs: Sequence[Sample]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "work": work.name,
        "mover": {"name": work.mover.name} | summary(ours, steady=work.steady),
        "peer": None,
        "ratio": None,
        "target": "",
        "met": None,
        "pairs": len(ours),
        "basis": "without start-up" if work.steady else "whole processes",
        **work.facts,
    }
    if peer is None:
        return row
    rates, costs = ratios(ours, theirs, steady=work.steady)
    rate, cost = statistics.median(rates), statistics.median(costs)
    row["peer"] = {"name": peer.name} | summary(theirs, steady=work.steady)
    row["ratio"] = {
        "gb_per_s": _short(rate),
        "cpu": _short(cost),
        "gb_per_s_range": [_short(min(rates)), _short(max(rates))],
        "cpu_range": [_short(min(costs)), _short(max(costs))],
    }
    if not work.steady and any(sample.start_seconds for sample in (*ours, *theirs)):
        rates, costs = ratios(ours, theirs, steady=True)
        row["ratio"]["without_start_up"] = {
            "gb_per_s": _short(statistics.median(rates)),
            "cpu": _short(statistics.median(costs)),
        }
    row["ratio"]["time"] = _short(
        statistics.median(
            a.time(steady=work.steady) / b.time(steady=work.steady) for a, b in zip(ours, theirs, strict=True)
        )
    )
    if all(sample.told.get("bytes_read") for sample in (*ours, *theirs)):
        read = [a.told["bytes_read"] / b.told["bytes_read"] for a, b in zip(ours, theirs, strict=True)]
        row["ratio"]["bytes_read"] = _short(statistics.median(read))
    if peer.goal is not None:
        row["target"], row["met"] = str(peer.goal), peer.goal.met(row["ratio"])
    return row


def alone(work: str, name: str, samples: Sequence[Sample], measured: str, **facts: Any) -> dict[str, Any]:
    """The row of something that has no peer and is held to a limit of its own: ``measured`` says what came out.

    ``facts`` may hold ``target`` and ``met``.
    """
    return {
        "work": work,
        "mover": {"name": name} | summary(samples, steady=False),
        "peer": None,
        "ratio": None,
        "target": "",
        "met": None,
        "pairs": len(samples),
        "basis": "whole processes",
        "measured": measured,
        **facts,
    }


def ratios(ours: Sequence[Sample], theirs: Sequence[Sample], *, steady: bool) -> tuple[list[float], list[float]]:
    """Rate and cost of each round, mover / peer. A peer too quick for the clock of the system costs at least 1 us."""
    pairs = list(zip(ours, theirs, strict=True))
    rates = [a.rate(steady=steady) / b.rate(steady=steady) for a, b in pairs]
    costs = [a.cost(steady=steady) / max(b.cost(steady=steady), 1e-6) for a, b in pairs]
    return rates, costs


def summary(samples: Sequence[Sample], *, steady: bool) -> dict[str, Any]:
    """Medians, with the range beside them; also without the start where that is known and not left out anyway."""
    rates = [sample.rate(steady=steady) for sample in samples]
    costs = [sample.cost(steady=steady) for sample in samples]
    result: dict[str, Any] = {
        "gb_per_s": _short(statistics.median(rates)),
        "cpu_s_per_gb": _short(statistics.median(costs)),
        "seconds": _short(statistics.median(sample.time(steady=steady) for sample in samples)),
        "rss_mb": round(max(sample.rss_bytes for sample in samples) / 1e6),
        "gb_per_s_range": [_short(min(rates)), _short(max(rates))],
        "cpu_s_per_gb_range": [_short(min(costs)), _short(max(costs))],
        "bytes_in": samples[-1].bytes_in,
        "bytes_out": samples[-1].bytes_out or None,
    }
    if not steady and all(sample.start_seconds for sample in samples):
        result["without_start_up"] = {
            "gb_per_s": _short(statistics.median(sample.rate(steady=True) for sample in samples)),
            "cpu_s_per_gb": _short(statistics.median(sample.cost(steady=True) for sample in samples)),
        }
    return result


def _short(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")
