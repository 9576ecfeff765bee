"""The proxy of :mod:`fault_proxy` with a plan: which request goes wrong, and how, follows from a seed.

``faults(seed, number, rates)`` is a pure function, so a run that failed is repeated by its seed. What a fault does to a
request it does not fit (a damaged body where there is none) is nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

from fault_proxy import Fault, FaultProxy

# What a store or the way to it does wrong, without lying for good: the same request, asked again, is answered.
KINDS = (
    "slow-down",
    "too-many",
    "unavailable",
    "retry-soon",
    "lost",
    "reset",
    "drop",
    "delay",
    "damage",
    "error-200",
    "empty-200",
    "cut",
    "corrupt",
    "shorter",
)
ONLY = {
    "damage": ("PUT",),  # a body that has a checksum
    "corrupt": ("GET",),  # the content of an object; see FaultProxy
    "shorter": ("GET",),
    "cut": ("GET", "PUT", "POST"),
    "empty-200": ("GET", "PUT", "POST", "HEAD"),  # a deletion has no other answer
    "error-200": ("GET", "PUT", "POST"),
}


def evenly(total: float) -> dict[str, float]:
    """Every kind as often as the others, ``total`` of the requests altogether."""
    return dict.fromkeys(KINDS, total / len(KINDS))


def fault(seed: int, number: int, rates: Mapping[str, float]) -> str | None:
    """What happens to request ``number`` of a run with ``seed``; None: nothing. Pure."""
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    at = int.from_bytes(digest, "big") / 2**64
    for kind, rate in rates.items():
        if at < rate:
            return kind
        at -= rate
    return None


class ChaosProxy(FaultProxy):
    """Args: seed: of the plan. rates: how often each kind, as a share of all requests; an empty one is calm."""

    def __init__(self, backend: str, seed: int, rates: Mapping[str, float]) -> None:
        super().__init__(backend)
        self.seed = seed
        self.rates = dict(rates)
        self.done: Counter[str] = Counter()  # faults that happened, by kind

    def _next_fault(self, request):
        chosen = super()._next_fault(request)
        kind = fault(self.seed, len(self.seen), self.rates)
        if chosen is not None or kind is None or request.method not in ONLY.get(kind, (request.method,)):
            return chosen
        self.done[kind] += 1
        return Fault(kind, request.method, "", 1)
