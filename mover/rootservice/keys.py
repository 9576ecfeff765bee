"""The verbs on a destination's key ring: look, add a way in, write with a new key, take a way in away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mover.clock import iso_from_us
from mover.encryption.given import key_sources
from mover.encryption.keyring import KeyRing, OpenRing, Slot, without_slot
from mover.encryption.sources import KeySource
from mover.errors import ConfigError, EncryptionKeyError, PreconditionError
from mover.repository.keys import StoredRing, load_ring, store_ring
from mover.rootservice.session import Session


@dataclass(frozen=True, slots=True)
class KeyView:
    """The ring as people see it; no secret is in it. ``opened_by``: the slot that the given secret opens."""

    ring: KeyRing
    opened_by: int | None

    def as_json(self) -> dict[str, Any]:
        current = self.ring.current.id
        return {
            "slots": [
                {
                    "slot": slot.number,
                    "kind": slot.kind,
                    "created": iso_from_us(slot.created_us),
                    "detail": _detail(slot),
                    "opened": slot.number == self.opened_by,
                }
                for slot in self.ring.slots
            ],
            "keys": [
                {"key_id": key.id.hex(), "created": iso_from_us(key.created_us), "current": key.id == current}
                for key in self.ring.keys
            ],
        }


def _detail(slot: Slot) -> str:
    if slot.kind == "passphrase":
        return " ".join(f"{name}={slot.parameters.get(name)}" for name in ("kdf", "n", "r", "p"))
    return str(slot.parameters.get("url", ""))


async def show(session: Session) -> KeyView:
    """The ring, and which slot the given secrets open, if any was given. Raises PreconditionError without a ring."""
    stored = await _stored(session)
    given = key_sources(session.settings)
    try:
        opened = (await OpenRing.unlock(stored.ring, given)).slot if given else None
    except EncryptionKeyError:
        opened = None
    return KeyView(stored.ring, opened)


async def add(session: Session, new: tuple[KeySource, ...]) -> KeyView:
    """A slot for each of ``new``. No data is touched.

    Raises EncryptionKeyError when the given secrets open no slot, PreconditionError without a ring, StateError when
    somebody else changes the ring at the same time.
    """
    stored, opened = await _unlocked(session)
    for source in new:
        opened = await opened.with_slot(source, session.clock.now_us())
    await store_ring(session.repository, opened.ring, stored.generation)
    return KeyView(opened.ring, opened.slot)


async def rotate(session: Session, new: tuple[KeySource, ...]) -> KeyView:
    """A new data key, which backups and archivers that begin from now on write with.

    With ``new`` the slot that was opened is replaced by slots for them: a changed passphrase, a rotated key file.
    Raises as :func:`add`.
    """
    stored, opened = await _unlocked(session)
    used = opened.slot
    opened = opened.with_new_key(session.clock.now_us())
    for source in new:
        opened = await opened.with_slot(source, session.clock.now_us())
    if new:
        opened = opened.without_slot(used)
    await store_ring(session.repository, opened.ring, stored.generation)
    return KeyView(opened.ring, None if new else used)


async def remove(session: Session, slot: int) -> KeyView:
    """Take a slot away. Its secret is not needed: this is for one that is lost or known to others.

    Raises PreconditionError for the last slot and for one that is not there.
    """
    stored = await _stored(session)
    ring = without_slot(stored.ring, slot)
    await store_ring(session.repository, ring, stored.generation)
    return KeyView(ring, None)


async def _stored(session: Session) -> StoredRing:
    stored = await load_ring(session.repository)
    if stored is None:
        raise PreconditionError(
            f"there are no keys at {session.repository.target.url}",
            hint="the first `mover archivelog start` or `mover backup` with --encrypt makes them",
        )
    return stored


async def _unlocked(session: Session) -> tuple[StoredRing, OpenRing]:
    stored = await _stored(session)
    given = key_sources(session.settings)
    if not given:
        raise ConfigError(
            "no key is given that opens the keys of this destination",
            hint="give --encrypt-key-file, --encrypt-kms, --encrypt-passphrase-file or MOVER_ENCRYPT_PASSPHRASE",
        )
    return stored, await OpenRing.unlock(stored.ring, given)
