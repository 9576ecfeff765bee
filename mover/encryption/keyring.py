"""The key ring of a destination: data keys, wrapped by one key-encryption key, which every slot wraps in its own way.

A slot is one way in: a passphrase, a key file or a KMS. Adding or removing a slot, and replacing a secret, rewrites the
ring and no data. A data key is never removed: what was written with it needs it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

from mover.encryption.cipher import KEY_ID_SIZE, KEY_SIZE, DataKey, Keys, aes_gcm
from mover.encryption.sources import KeySource
from mover.errors import EncryptionKeyError, FormatError, PreconditionError

RING_VERSION = 1
_NONCE_SIZE = 12


@dataclass(frozen=True, slots=True)
class Slot:
    """One way to the key-encryption key."""

    number: int
    kind: str  # "passphrase" "key-file" "kms"
    created_us: int
    parameters: dict[str, Any]  # what the source needs to unwrap again; no secret
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as the ring has it."""

    id: bytes
    created_us: int
    wrapped: bytes  # nonce, ciphertext and tag under the key-encryption key


@dataclass(frozen=True, slots=True)
class KeyRing:
    """What ``mover_keys`` holds. ``next_slot`` never goes back: a slot number names one secret for ever."""

    slots: tuple[Slot, ...]
    keys: tuple[WrappedKey, ...]  # oldest first; the last one is written with
    next_slot: int

    @property
    def current(self) -> WrappedKey:
        """The key that new data is written with."""
        return self.keys[-1]

    def as_json(self) -> dict[str, Any]:
        """The content of the file, JSON-able."""
        return {
            "version": RING_VERSION,
            "next_slot": self.next_slot,
            "slots": [
                {
                    "slot": slot.number,
                    "kind": slot.kind,
                    "created_us": slot.created_us,
                    "parameters": slot.parameters,
                    "wrapped": slot.wrapped.hex(),
                }
                for slot in self.slots
            ],
            "keys": [
                {"id": key.id.hex(), "created_us": key.created_us, "wrapped": key.wrapped.hex()} for key in self.keys
            ],
        }

    @classmethod
    def from_json(cls, value: Any) -> KeyRing:
        """The inverse of :meth:`as_json`. Raises FormatError."""
        try:
            if value["version"] != RING_VERSION:
                raise FormatError(
                    f"key ring version {value['version']}, this mover reads {RING_VERSION}", hint="use a newer mover"
                )
            slots = tuple(
                Slot(
                    int(slot["slot"]),
                    str(slot["kind"]),
                    int(slot["created_us"]),
                    dict(slot["parameters"]),
                    bytes.fromhex(slot["wrapped"]),
                )
                for slot in value["slots"]
            )
            keys = tuple(
                WrappedKey(bytes.fromhex(key["id"]), int(key["created_us"]), bytes.fromhex(key["wrapped"]))
                for key in value["keys"]
            )
            ring = cls(slots, keys, int(value["next_slot"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise FormatError("bad key ring: a member is missing or of the wrong type") from None
        numbers = [slot.number for slot in slots]
        if not keys or not slots or len(set(numbers)) != len(numbers) or max(numbers) >= ring.next_slot:
            raise FormatError("bad key ring: expected a key, a slot, and each slot number once")
        if any(len(key.id) != KEY_ID_SIZE for key in keys) or len({key.id for key in keys}) != len(keys):
            raise FormatError(f"bad key ring: expected key ids of {KEY_ID_SIZE} bytes, each once")
        return ring


@dataclass(frozen=True, slots=True)
class OpenRing:
    """A ring whose key-encryption key is at hand; ``slot`` is the number of the slot that opened it."""

    ring: KeyRing
    slot: int
    kek: bytes = field(repr=False)

    @classmethod
    async def create(cls, sources: tuple[KeySource, ...], now_us: int) -> OpenRing:
        """A new ring with one data key and a slot for each source."""
        opened = cls(KeyRing((), (), 1), 1, os.urandom(KEY_SIZE)).with_new_key(now_us)
        for source in sources:
            opened = await opened.with_slot(source, now_us)
        return opened

    @classmethod
    async def unlock(cls, ring: KeyRing, sources: tuple[KeySource, ...]) -> OpenRing:
        """Try every source on every slot of its kind.

        Raises EncryptionKeyError, naming the data key to write with, when none fits; what a KMS raises goes first.
        """
        tried = []
        for source in sources:
            for slot in ring.slots:
                if slot.kind == source.kind:
                    kek = await source.unwrap(slot.parameters, slot.wrapped)
                    if kek is not None:
                        return cls(ring, slot.number, kek)
            tried.append(source.label)
        wants = ", ".join(f"slot {slot.number}: {slot.kind}" for slot in ring.slots)
        raise EncryptionKeyError(
            f"{' and '.join(tried)} given here does not open the keys of this destination ({wants}),"
            f" data key {ring.current.id.hex()} among them",
            hint="`mover key list` shows the slots; give the secret of one of them",
            key_id=ring.current.id.hex(),
        )

    def keys(self) -> Keys:
        """All data keys. Raises EncryptionKeyError when one was not wrapped by this key-encryption key."""
        from cryptography.exceptions import InvalidTag

        cipher, found = aes_gcm(self.kek), {}
        for key in self.ring.keys:
            try:
                secret = cipher.decrypt(key.wrapped[:_NONCE_SIZE], key.wrapped[_NONCE_SIZE:], _about(key.id))
            except InvalidTag:
                raise EncryptionKeyError(
                    f"data key {key.id.hex()} in mover_keys was changed, or belongs to another ring",
                    key_id=key.id.hex(),
                ) from None
            found[key.id] = DataKey(key.id, secret)
        return Keys(found, current=self.ring.current.id)

    def with_new_key(self, now_us: int) -> OpenRing:
        """With a new data key that is written with from now on."""
        key = DataKey.random()
        nonce = os.urandom(_NONCE_SIZE)
        wrapped = nonce + aes_gcm(self.kek).encrypt(nonce, key.secret, _about(key.id))
        return replace(self, ring=replace(self.ring, keys=(*self.ring.keys, WrappedKey(key.id, now_us, wrapped))))

    async def with_slot(self, source: KeySource, now_us: int) -> OpenRing:
        """With one more way in."""
        parameters, wrapped = await source.wrap(self.kek)
        slot = Slot(self.ring.next_slot, source.kind, now_us, parameters, wrapped)
        return replace(self, ring=replace(self.ring, slots=(*self.ring.slots, slot), next_slot=self.ring.next_slot + 1))

    def without_slot(self, number: int) -> OpenRing:
        """With a way in less. Raises PreconditionError for the last one and for one that is not there."""
        return replace(self, ring=without_slot(self.ring, number))


def without_slot(ring: KeyRing, number: int) -> KeyRing:
    """See :meth:`OpenRing.without_slot`. Pure."""
    left = tuple(slot for slot in ring.slots if slot.number != number)
    if len(left) == len(ring.slots):
        raise PreconditionError(f"there is no key slot {number}", hint="`mover key list` shows the slots")
    if not left:
        raise PreconditionError(
            f"key slot {number} is the last one: without it nothing could be decrypted any more",
            hint="add another with `mover key add` first",
        )
    return replace(ring, slots=left)


def _about(key_id: bytes) -> bytes:
    return b"mover data key " + key_id
