"""What the writers had committed at SCNs of the log: bounds for a restore to any of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine_load import Load, scn_now


@dataclass
class Ledger:
    """Samples of a running load."""

    load: Load
    samples: list[tuple[int, dict[int, int], dict[int, int]]] = field(default_factory=list)

    async def sample(self) -> int:
        """Note the present; the SCN.

        What was committed before the SCN is read is there at the SCN. Each writer works on one transaction at a time:
        one that is neither committed nor the next when the SCN is known has not begun yet.
        """
        before = dict(self.load.committed)
        scn = await scn_now(self.load.options)
        after = {writer: self.load.committed.get(writer, 0) + 1 for writer in range(self.load.writers)}
        self.samples.append((scn, before, after))
        return scn

    def bounds(self, scn: int) -> tuple[dict[int, int], dict[int, int]]:
        """(What must be there, what must not be passed) of each writer at ``scn``, which some sample follows."""
        at_least: dict[int, int] = {}
        for known, before, after in sorted(self.samples, key=lambda sample: sample[0]):
            if known >= scn:
                return at_least, after
            at_least = before
        raise ValueError(f"SCN {scn} is later than every sample")
