"""What the settings say about encryption: with which secrets, and whether to encrypt what is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mover.encryption.cipher import CIPHER, DataKey
from mover.encryption.given import key_sources
from mover.errors import ConfigError, EncryptionKeyError
from mover.repository.keys import keys_to_write, load_ring

if TYPE_CHECKING:
    from mover.rootservice.session import Session


async def writing_key(session: Session, *, make: bool = True) -> DataKey | None:
    """The data key to encrypt with now, None without ``--encrypt``; the session has its keys from then on.

    The destination's key ring is made when there is none, unless ``make`` says that nothing may be written: then the
    key is one that nobody will use. Raises ConfigError when no secret was given,
    EncryptionKeyError when the given ones do not open the ring.
    """
    settings = session.settings
    if settings.encrypt != CIPHER:
        return None
    given = key_sources(settings)
    if not given:
        raise ConfigError(
            f"--encrypt {settings.encrypt} needs a key, and none was given",
            hint="give --encrypt-key-file, --encrypt-kms, --encrypt-passphrase-file or MOVER_ENCRYPT_PASSPHRASE",
        )
    if not make and await load_ring(session.repository) is None:
        return DataKey.random()
    keys = await keys_to_write(session.repository, given, session.clock.now_us())
    session.use_keys(keys)
    return keys.current


def require_same(what: str, encrypted_with: str, key: DataKey | None) -> None:
    """What goes on with something encrypted is encrypted, and the other way round. Raises EncryptionKeyError."""
    if encrypted_with and key is None:
        raise EncryptionKeyError(
            f"{what} is encrypted with data key {encrypted_with}, and what is added to it would not be",
            hint=f"say --encrypt {CIPHER} with its key, or begin anew: a full backup, a new round",
            key_id=encrypted_with,
        )
    if key is not None and not encrypted_with:
        raise EncryptionKeyError(
            f"{what} is not encrypted, and encrypted bytes on top of it would protect little",
            hint="begin anew with --encrypt: a full backup, a new round",
            key_id=key.name,
        )
