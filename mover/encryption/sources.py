"""Where the key that wraps keys comes from: a passphrase, a key file, a key management service."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any, Protocol

from mover.encryption.cipher import KEY_SIZE, aes_gcm, hkdf
from mover.errors import ConfigError, FormatError

# 32 MiB and about a tenth of a second for each guess. Recorded in the slot, so that they can grow.
SCRYPT_N = 1 << 15
SCRYPT_R = 8
SCRYPT_P = 1
_MOST_MEMORY = 1 << 30  # of what a ring may ask for
_SALT_SIZE = 16
_NONCE_SIZE = 12
_WRAP_INFO = b"mover key slot 1"


class KeySource(Protocol):
    """One kind of secret that wraps the key-encryption key."""

    @property
    def kind(self) -> str:
        """What a slot says: ``passphrase``, ``key-file`` or ``kms``."""
        ...

    @property
    def label(self) -> str:
        """For messages; no secret."""
        ...

    async def wrap(self, kek: bytes) -> tuple[dict[str, Any], bytes]:
        """Parameters to record in the slot, and the wrapped key. Raises UnreachableError, PreconditionError (a KMS)."""
        ...

    async def unwrap(self, parameters: dict[str, Any], wrapped: bytes) -> bytes | None:
        """The key of a slot of this kind, None when it was wrapped with another secret.

        Raises FormatError for parameters that no mover writes; UnreachableError, PreconditionError (a KMS).
        """
        ...


class Passphrase:
    """A passphrase, through scrypt (RFC 7914)."""

    kind = "passphrase"
    label = "the passphrase"

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    async def wrap(self, kek: bytes) -> tuple[dict[str, Any], bytes]:
        parameters = {
            "kdf": "scrypt",
            "n": SCRYPT_N,
            "r": SCRYPT_R,
            "p": SCRYPT_P,
            "salt": os.urandom(_SALT_SIZE).hex(),
        }
        return parameters, _wrap(await asyncio.to_thread(self._derive, parameters), kek)

    async def unwrap(self, parameters: dict[str, Any], wrapped: bytes) -> bytes | None:
        return _unwrap(await asyncio.to_thread(self._derive, parameters), wrapped)

    def _derive(self, parameters: dict[str, Any]) -> bytes:
        try:
            kdf, salt = parameters["kdf"], bytes.fromhex(parameters["salt"])
            n, r, p = (int(parameters[name]) for name in "nrp")
        except (KeyError, TypeError, ValueError):
            raise FormatError("bad key slot: expected kdf, n, r, p and salt of a passphrase") from None
        memory = 128 * n * r
        # What a hostile ring only claims must not take the machine.
        if kdf != "scrypt" or n < 2 or n & (n - 1) or min(r, p) < 1 or p > 16 or memory > _MOST_MEMORY:
            raise FormatError(f"bad key slot: {kdf} with n {n}, r {r}, p {p} is not what mover derives keys with")
        return hashlib.scrypt(self._text, salt=salt, n=n, r=r, p=p, maxmem=memory + (1 << 20), dklen=KEY_SIZE)


class KeyFile:
    """A file of 32 random bytes, or of 64 hexadecimal digits. Raises ConfigError when it can not be read or is not."""

    kind = "key-file"

    def __init__(self, path: Path) -> None:
        self.label = f"the key file {path}"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"key file {path} cannot be read: {(error.strerror or 'i/o error').lower()}",
                hint="name a file that this user can read",
            ) from None
        if len(data) != KEY_SIZE:
            try:
                data = bytes.fromhex(data.decode("ascii").strip())
            except ValueError:
                data = b""
        if len(data) != KEY_SIZE:
            raise ConfigError(
                f"key file {path} is not {KEY_SIZE} bytes, nor {2 * KEY_SIZE} hexadecimal digits",
                hint="make one with `openssl rand -hex 32`, readable by you alone",
            )
        self._secret = data

    async def wrap(self, kek: bytes) -> tuple[dict[str, Any], bytes]:
        parameters = {"salt": os.urandom(_SALT_SIZE).hex()}
        return parameters, _wrap(self._derive(parameters), kek)

    async def unwrap(self, parameters: dict[str, Any], wrapped: bytes) -> bytes | None:
        return _unwrap(self._derive(parameters), wrapped)

    def _derive(self, parameters: dict[str, Any]) -> bytes:
        try:
            salt = bytes.fromhex(parameters["salt"])
        except (KeyError, TypeError, ValueError):
            raise FormatError("bad key slot: expected the salt of a key file") from None
        return hkdf(self._secret, salt, _WRAP_INFO)


class Kms(Protocol):
    """A key management service that keeps the wrapping key to itself."""

    @property
    def url(self) -> str:
        """Which key of which service; recorded in the slot, so without credentials."""
        ...

    async def encrypt(self, plain: bytes) -> bytes:
        """Wrap. Raises UnreachableError when it does not answer, PreconditionError when it refuses."""
        ...

    async def decrypt(self, wrapped: bytes) -> bytes | None:
        """Unwrap; None when another key wrapped it. Raises as :meth:`encrypt`."""
        ...


class KmsSource:
    """A slot whose key a KMS wraps."""

    kind = "kms"

    def __init__(self, kms: Kms) -> None:
        self._kms = kms
        self.label = kms.url

    async def wrap(self, kek: bytes) -> tuple[dict[str, Any], bytes]:
        return {"url": self._kms.url}, await self._kms.encrypt(kek)

    async def unwrap(self, parameters: dict[str, Any], wrapped: bytes) -> bytes | None:  # noqa: ARG002
        # A key may have moved: its alias or its region is what the user says now, and the service knows its own.
        return await self._kms.decrypt(wrapped)


def _wrap(key: bytes, kek: bytes) -> bytes:
    nonce = os.urandom(_NONCE_SIZE)
    return nonce + aes_gcm(key).encrypt(nonce, kek, _WRAP_INFO)


def _unwrap(key: bytes, wrapped: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    try:
        return aes_gcm(key).decrypt(wrapped[:_NONCE_SIZE], wrapped[_NONCE_SIZE:], _WRAP_INFO)
    except (InvalidTag, ValueError):
        return None
