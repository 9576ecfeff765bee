"""Where the bytes of a set are, and what they must be."""

from __future__ import annotations

from dataclasses import dataclass

from mover.store.base import BlockIdentity


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of a set: what the manifest says about it."""

    path: str  # relative to the root of the destination
    size: int
    digest: bytes  # XXH3-128


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the bytes of a block are, and what they must be."""

    identity: BlockIdentity
    digest: bytes  # XXH3-128 of the used bytes
    backup_set_id: int
    sub_task_id: int
    offset: int
    length: int
