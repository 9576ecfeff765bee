"""Doctor: whether the given secrets open the keys of a destination, or could wrap new ones."""

from __future__ import annotations

from mover.config import Settings
from mover.encryption.given import key_sources
from mover.encryption.keyring import OpenRing
from mover.errors import ConfigError, MoverError
from mover.media.layout import SYS_TENANT_ID, Layout
from mover.repository.keys import load_ring
from mover.repository.tree import Repository
from mover.rootservice.doctor_checks import Check, State, failed
from mover.target.base import Target


async def probe_keys(target: Target, settings: Settings) -> Check:
    """The check of the keys; nothing is written: a destination without keys gets them from what encrypts first."""
    repository = Repository(target, Layout(settings.cluster_name, settings.cluster_id), SYS_TENANT_ID)
    try:
        given = key_sources(settings)
        if not given:
            raise ConfigError("no key is given", hint="give --encrypt-key-file, --encrypt-kms or a passphrase")
        stored = await load_ring(repository)
        if stored is None:
            made = await OpenRing.create(given, 0)
            return Check("destination", "keys", State.OK, f"none yet; {len(made.ring.slots)} secrets to wrap them")
        opened = await OpenRing.unlock(stored.ring, given)
        current = opened.keys().current.name
    except MoverError as error:
        return failed("destination", "keys", error)
    return Check("destination", "keys", State.OK, f"slot {opened.slot} opens them; data key {current} is written with")
