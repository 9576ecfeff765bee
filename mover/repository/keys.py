"""The key ring at a destination: found, opened, replaced."""

from __future__ import annotations

from dataclasses import dataclass

from mover.encryption.cipher import NO_KEYS, Keys
from mover.encryption.keyring import KeyRing, OpenRing
from mover.encryption.sources import KeySource
from mover.errors import EncryptionKeyError, MoverError, StateError, TargetExists, TargetNotFound
from mover.media.key_file import decode_key_ring, encode_key_ring
from mover.repository.tree import Repository, decode_named

_TRIES = 5


@dataclass(frozen=True, slots=True)
class StoredRing:
    """A ring and the generation it was read from."""

    generation: int
    ring: KeyRing


async def load_ring(repository: Repository) -> StoredRing | None:
    """The newest key ring, None when the destination has none. Raises FormatError."""
    for _ in range(_TRIES):
        found = await repository.numbered(repository.layout.keys_dir)
        if not found:
            return None
        generation, info = found[-1]
        try:
            data = await repository.target.get(info.path)
        except TargetNotFound:
            continue  # replaced between the two
        return StoredRing(generation, decode_named(info.path, data, decode_key_ring))
    raise StateError(f"{repository.layout.keys_dir}: the key ring changes faster than it can be read")


async def store_ring(repository: Repository, ring: KeyRing, after: int) -> StoredRing:
    """Write a ring as the generation behind ``after`` (0: the first), then remove the older ones.

    Raises StateError when somebody else changed the ring since it was read: nothing was changed then.
    """
    layout = repository.layout
    try:
        await repository.target.put(layout.key_ring(after + 1), encode_key_ring(ring), if_absent=True)
    except TargetExists:
        raise StateError(
            "the keys of this destination were changed by somebody else meanwhile",
            hint="look with `mover key list` and try again",
        ) from None
    for generation, info in await repository.numbered(layout.keys_dir):
        if generation <= after:
            await repository.target.delete(info.path)
    return StoredRing(after + 1, ring)


async def load_keys(repository: Repository, sources: tuple[KeySource, ...]) -> Keys:
    """The data keys that ``sources`` open. Without a source, or a ring, there are none.

    A secret that does not fit, or a KMS that does not answer, raises only when a key is asked for: whoever meets
    nothing encrypted needs none.
    """
    if not sources:
        return NO_KEYS
    try:
        stored = await load_ring(repository)
        if stored is None:
            return Keys(refusal=EncryptionKeyError("this destination has no keys: nothing was encrypted here yet"))
        return (await OpenRing.unlock(stored.ring, sources)).keys()
    except MoverError as exc:
        return Keys(refusal=exc)


async def keys_to_write(repository: Repository, sources: tuple[KeySource, ...], now_us: int) -> Keys:
    """The data keys, the first of which is made when the destination has none. Raises EncryptionKeyError."""
    stored = await load_ring(repository)
    if stored is None:
        made = await OpenRing.create(sources, now_us)
        try:
            await store_ring(repository, made.ring, 0)
        except StateError:
            stored = await load_ring(repository)  # another one was first
        else:
            return made.keys()
    if stored is None:
        raise StateError(f"{repository.layout.keys_dir}: the key ring disappeared while it was made")
    return (await OpenRing.unlock(stored.ring, sources)).keys()
