"""Pieces: what is sealed opens again with its key in its place, and in no other way; no nonce comes twice."""

from __future__ import annotations

import hmac
import pickle
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.encryption import cipher
from mover.encryption.cipher import KEY_ID_SIZE, NO_KEYS, TRAILER_SIZE, DataKey, Keys, Sealer, hkdf, key_id_of
from mover.errors import EncryptionKeyError, IntegrityError

KEY = DataKey.random()
KEYS = Keys({KEY.id: KEY}, current=KEY.id)


@given(st.binary(max_size=5000), st.binary(max_size=40))
def test_what_is_sealed_opens_again(plain: bytes, aad: bytes) -> None:
    sealed = Sealer(KEY).seal(plain, aad)
    assert len(sealed) == len(plain) + TRAILER_SIZE
    assert KEYS.open(sealed, aad) == plain
    assert key_id_of(sealed) == KEY.id


@given(st.binary(max_size=300), st.data())
def test_every_changed_bit_is_refused(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(Sealer(KEY).seal(plain, b"here"))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    in_key_id = bit // 8 >= len(sealed) - KEY_ID_SIZE
    with pytest.raises(EncryptionKeyError if in_key_id else IntegrityError):
        KEYS.open(bytes(sealed), b"here")


def test_in_another_place_it_does_not_open() -> None:
    sealed = Sealer(KEY).seal(b"row", b"file 1, offset 0")
    with pytest.raises(IntegrityError, match="not those of this place"):
        KEYS.open(sealed, b"file 1, offset 4096")


def test_another_key_with_the_same_id_does_not_open() -> None:
    other = DataKey(KEY.id, DataKey.random().secret)
    with pytest.raises(IntegrityError):
        Keys({other.id: other}).open(Sealer(KEY).seal(b"row", b""), b"")


def test_without_the_key_its_id_is_named() -> None:
    sealed = Sealer(KEY).seal(b"row", b"")
    for keys in (NO_KEYS, Keys({b"12345678": DataKey(b"12345678", bytes(32))})):
        with pytest.raises(EncryptionKeyError, match=KEY.name) as caught:
            keys.open(sealed, b"")
        assert caught.value.exit_code == 4
        assert caught.value.where["key_id"] == KEY.name


def test_too_short_a_piece_is_damage() -> None:
    with pytest.raises(IntegrityError):
        KEYS.open(bytes(TRAILER_SIZE - 1), b"")


def test_salt_and_number_never_repeat_over_threads_and_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trailer is what the nonce is made of: a thousand pieces of each of several writers, some beyond a salt."""
    monkeypatch.setattr(cipher, "PIECES_PER_SALT", 300)
    writers = [Sealer(KEY) for _ in range(3)]
    with ThreadPoolExecutor(8) as threads:
        sealed = list(threads.map(lambda n: writers[n % 3].seal(b"x", b""), range(3000)))
    used = {piece[17 : 17 + 24] for piece in sealed}
    assert len(used) == 3000
    assert len({piece[17 : 17 + 16] for piece in sealed}) == 3 * 4
    assert all(KEYS.open(piece, b"") == b"x" for piece in sealed)


def test_hkdf_is_rfc_5869() -> None:
    """Test case 1 of the RFC, whose first 32 bytes these are; and the definition spelled out."""
    secret, salt, info = bytes([0x0B] * 22), bytes(range(13)), bytes(range(0xF0, 0xFA))
    expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    assert hkdf(secret, salt, info).hex() == expected
    extracted = hmac.new(salt, secret, sha256).digest()
    assert hkdf(secret, salt, info) == hmac.new(extracted, info + b"\x01", sha256).digest()


def test_a_key_shows_no_secret() -> None:
    assert KEY.secret.hex() not in repr(KEY) + str(KEY)
    assert repr(KEY.secret) not in repr(KEY)
    # It goes to packing processes.
    assert pickle.loads(pickle.dumps(KEY)) == KEY
