"""AES-256-GCM for pieces of files: a sealed piece is ``ciphertext | trailer``, and the trailer says how to open it.

The trailer is 48 bytes: the tag (16), the salt of the writer (16), the number of the piece (u64, big-endian), the id of
the data key (8). The key of a piece is HKDF-SHA256 of data key and salt, its nonce four zero bytes and its number. A
writer draws a salt of its own and counts, so no pair of key and nonce comes twice, whoever crashes or tries again.
"""

from __future__ import annotations

import hmac
import os
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from mover.errors import EncryptionKeyError, IntegrityError, MoverError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from typing_extensions import Buffer

CIPHER = "aes-256-gcm"
KEY_SIZE = 32
KEY_ID_SIZE = 8
TAG_SIZE = 16
_SALT_SIZE = 16
_TRAILER = struct.Struct(f">{_SALT_SIZE}sQ{KEY_ID_SIZE}s")
TRAILER_SIZE = TAG_SIZE + _TRAILER.size
# A writer takes a new salt, and so a new key, after so many pieces: 2 TiB of macroblocks, far inside of GCM's bounds.
PIECES_PER_SALT = 1 << 20
_INFO = b"mover piece 1"
_CIPHERS = 64  # keys of writers that are kept ready


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key that data is encrypted with; it exists in memory only, at the destination it is wrapped."""

    id: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def random(cls) -> DataKey:
        """A new one."""
        return cls(os.urandom(KEY_ID_SIZE), os.urandom(KEY_SIZE))

    @property
    def name(self) -> str:
        """The id as people see it: 16 hexadecimal digits."""
        return self.id.hex()


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes of HKDF-SHA256 (RFC 5869)."""
    return hmac.digest(hmac.digest(salt, secret, sha256), info + b"\x01", sha256)


def aes_gcm(key: bytes) -> AESGCM:
    """The cipher with ``key``. Imported here: commands that meet no encryption start without it."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


class Sealer:
    """Encrypts pieces with one data key. May be used by several threads; a process must make its own."""

    def __init__(self, key: DataKey) -> None:
        self.key = key
        self._lock = threading.Lock()
        self._renew()

    def _renew(self) -> None:
        self._salt = os.urandom(_SALT_SIZE)
        self._cipher = aes_gcm(hkdf(self.key.secret, self._salt, _INFO))
        self._number = 0

    def _next(self) -> tuple[AESGCM, bytes, int]:
        with self._lock:
            if self._number == PIECES_PER_SALT:
                self._renew()
            number = self._number
            self._number += 1
            return self._cipher, self._salt, number

    def seal_in_place(self, buffer: memoryview, length: int, aad: bytes) -> int:
        """Encrypt the first ``length`` bytes of ``buffer`` where they are, and put the trailer behind them.

        Args:
            buffer: writable, with TRAILER_SIZE bytes of room behind the plaintext.
            aad: what the piece is bound to; needed to open it.

        Returns the bytes of the sealed piece, ``length + TRAILER_SIZE``.
        """
        cipher, salt, number = self._next()
        end = length + TAG_SIZE
        cipher.encrypt_into(_nonce(number), buffer[:length], aad, buffer[:end])
        _TRAILER.pack_into(buffer, end, salt, number, self.key.id)
        return length + TRAILER_SIZE

    def seal(self, plain: Buffer, aad: bytes) -> bytes:
        """The sealed piece of ``plain``; see :meth:`seal_in_place`."""
        view = memoryview(plain)
        sealed = bytearray(len(view) + TRAILER_SIZE)
        sealed[: len(view)] = view
        self.seal_in_place(memoryview(sealed), len(view), aad)
        return bytes(sealed)


def key_id_of(sealed: Buffer) -> bytes:
    """Which data key a sealed piece needs. Raises IntegrityError when it is too short to be one."""
    view = memoryview(sealed)
    if len(view) < TRAILER_SIZE:
        raise IntegrityError(f"an encrypted piece of {len(view)} bytes has no trailer of {TRAILER_SIZE}")
    return bytes(view[-KEY_ID_SIZE:])


class Keys:
    """The data keys that are at hand, and the one to write with.

    Args:
        keys: by id.
        current: the id of the one to write with, None for none.
        refusal: why there are none; what asks for a key gets it raised.
    """

    def __init__(
        self, keys: Mapping[bytes, DataKey] | None = None, *, current: bytes | None = None,
        refusal: MoverError | None = None,
    ) -> None:  # fmt: skip
        self._keys = dict(keys or {})
        self._current = current
        self.refusal = refusal
        self._ciphers: dict[bytes, AESGCM] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __contains__(self, key_id: bytes) -> bool:
        return key_id in self._keys

    @property
    def current(self) -> DataKey:
        """The key to write with. Raises what keeps us from having one."""
        if self._current is None:
            raise self.refusal or EncryptionKeyError("there is no data key at hand", hint=_HINT)
        return self._keys[self._current]

    def get(self, key_id: bytes) -> DataKey:
        """A key by its id. Raises EncryptionKeyError naming it."""
        key = self._keys.get(key_id)
        if key is None:
            raise missing_key(key_id.hex(), self.refusal, known=bool(self._keys))
        return key

    def open_into(self, sealed: memoryview, out: memoryview, aad: bytes) -> int:
        """Decrypt a sealed piece to ``out``, which may be ``sealed`` itself; the bytes of the plaintext.

        Raises:
            EncryptionKeyError: its key is not at hand.
            IntegrityError: it was not sealed with this key and ``aad``, or not a bit is as it was.
        """
        from cryptography.exceptions import InvalidTag

        cipher, nonce = self._opening(sealed)
        length = len(sealed) - TRAILER_SIZE
        try:
            cipher.decrypt_into(nonce, sealed[: length + TAG_SIZE], aad, out[:length])
        except InvalidTag:
            raise IntegrityError(
                "encrypted bytes were changed, or are not those of this place",
            ) from None
        return length

    def open(self, sealed: Buffer, aad: bytes) -> bytes:
        """The plaintext of a sealed piece; raises as :meth:`open_into`."""
        view = memoryview(sealed)
        plain = bytearray(max(0, len(view) - TRAILER_SIZE))
        self.open_into(view, memoryview(plain), aad)
        return bytes(plain)

    def _opening(self, sealed: memoryview) -> tuple[AESGCM, bytes]:
        key_id = key_id_of(sealed)
        secret = self.get(key_id).secret
        trailer = sealed[len(sealed) - _TRAILER.size :]
        salt, number, _ = _TRAILER.unpack(trailer)
        which = bytes(key_id) + salt
        cipher = self._ciphers.get(which)
        if cipher is None:
            if len(self._ciphers) >= _CIPHERS:
                self._ciphers.clear()
            cipher = self._ciphers[which] = aes_gcm(hkdf(secret, salt, _INFO))
        return cipher, _nonce(number)


_HINT = "give --encrypt-key-file, --encrypt-kms, --encrypt-passphrase-file or MOVER_ENCRYPT_PASSPHRASE"


def missing_key(key_id: str, refusal: MoverError | None = None, *, known: bool = False) -> EncryptionKeyError:
    """The error that data key ``key_id`` is not at hand, and why."""
    if refusal is not None:
        text, hint = f"data key {key_id} is needed: {refusal.message}", refusal.hint
    elif known:
        text, hint = f"data key {key_id} is needed, and mover_keys at the destination has no such key", None
    else:
        text, hint = f"encrypted with data key {key_id}, and no key was given", _HINT
    return EncryptionKeyError(text, hint=hint or "see `mover key list`", key_id=key_id)


NO_KEYS = Keys()
