"""What doctor says: checks, each with what was found and what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mover.errors import MoverError
from mover.target.profiles import Profile

LITTLE_ROOM = 1 << 30
SKEW_WARNS = 5.0  # seconds; object stores refuse signatures that are 15 minutes off
SKEW_FAILS = 600.0


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"  # it will work, but not as well as it should
    FAIL = "fail"  # a backup would be refused, or could not be relied upon


@dataclass(frozen=True, slots=True)
class Check:
    """Something that was tried."""

    subject: str  # "source", "destination" or "catalog"
    name: str
    state: State
    detail: str
    advice: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "check": self.name,
            "state": str(self.state),
            "detail": self.detail,
            "advice": self.advice,
        }


@dataclass(frozen=True, slots=True)
class Examination:
    """Every check, in order. ``profile`` is what an object store was found to do; None for a directory."""

    checks: tuple[Check, ...]
    profile: Profile | None = None

    @property
    def ok(self) -> bool:
        """False when a backup would be refused."""
        return all(check.state != State.FAIL for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        found = {} if self.profile is None else {"profile": dataclasses.asdict(self.profile)}
        return {"ok": self.ok, "checks": [check.as_json() for check in self.checks], **found}


def failed(subject: str, name: str, error: MoverError) -> Check:
    """The check that ended in ``error``."""
    return Check(subject, name, State.FAIL, error.message, error.hint)


def no_round() -> Check:
    """Without a round a backup is refused."""
    advice = "`mover archivelog start`, and keep `mover archivelog run` going: a backup is refused without"
    return Check("destination", "archive", State.FAIL, "no archive round is DOING (-9040)", advice)


async def one(check: Check) -> AsyncIterator[Check]:
    """A single check where several are expected."""
    yield check


def size_text(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"
