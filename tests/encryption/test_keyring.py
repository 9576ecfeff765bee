"""The key ring: which secret opens it, that no change loses a key, and what its file may be."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.encryption import sources as sources_module
from mover.encryption.keyring import KeyRing, OpenRing
from mover.encryption.sources import KeyFile, KeySource, Passphrase
from mover.errors import ConfigError, EncryptionKeyError, FormatError, PreconditionError
from mover.media.key_file import decode_key_ring, encode_key_ring


@pytest.fixture(autouse=True)
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "SCRYPT_N", 16)


def key_file(root: Path, name: str = "key", fill: int = 7) -> KeyFile:
    (root / name).write_bytes(bytes([fill]) * 32)
    return KeyFile(root / name)


async def test_each_secret_opens_the_same_keys(tmp_path: Path) -> None:
    given_secrets: tuple[KeySource, ...] = (Passphrase("correct horse"), key_file(tmp_path))
    opened = (await OpenRing.create(given_secrets, 1)).with_new_key(2)
    assert len(opened.ring.slots) == 2
    keys = opened.keys()
    assert keys.current.id == opened.ring.keys[-1].id
    for source in given_secrets:
        again = (await OpenRing.unlock(opened.ring, (source,))).keys()
        for key in opened.ring.keys:
            assert again.get(key.id) == keys.get(key.id)


async def test_a_wrong_secret_is_refused_and_the_key_named(tmp_path: Path) -> None:
    ring = (await OpenRing.create((Passphrase("correct horse"),), 1)).ring
    for wrong in (Passphrase("correct hose"), key_file(tmp_path)):
        with pytest.raises(EncryptionKeyError) as caught:
            await OpenRing.unlock(ring, (wrong,))
        assert ring.current.id.hex() in caught.value.message
        assert "hose" not in caught.value.message


async def test_slots_come_and_go_and_the_keys_stay(tmp_path: Path) -> None:
    first, second = Passphrase("one"), key_file(tmp_path)
    opened = await OpenRing.create((first,), 1)
    secret = opened.keys().current
    opened = await opened.with_slot(second, 2)
    opened = opened.without_slot(1)
    with pytest.raises(EncryptionKeyError):
        await OpenRing.unlock(opened.ring, (first,))
    again = await OpenRing.unlock(opened.ring, (second,))
    assert again.slot == 2
    assert again.keys().current == secret
    with pytest.raises(PreconditionError, match="last one"):
        opened.without_slot(2)
    with pytest.raises(PreconditionError, match="no key slot 1"):
        opened.without_slot(1)
    # The number of a slot that went is not given again.
    assert (await opened.with_slot(first, 3)).ring.slots[-1].number == 3


async def test_a_data_key_of_another_ring_is_not_taken() -> None:
    mine, other = [await OpenRing.create((Passphrase("one"),), 1) for _ in range(2)]
    mixed = dataclasses.replace(mine, ring=dataclasses.replace(mine.ring, keys=other.ring.keys))
    with pytest.raises(EncryptionKeyError, match="another ring"):
        mixed.keys()


@pytest.mark.parametrize("content", [bytes(range(32)), b"%064d" % 5, b"%064d\n" % 5])
def test_key_files_that_are_taken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k").write_bytes(content)
    KeyFile(tmp_path / "k")


@pytest.mark.parametrize("content", [b"", bytes(31), b"z" * 64, b"0" * 63])
def test_key_files_that_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k").write_bytes(content)
    with pytest.raises(ConfigError):
        KeyFile(tmp_path / "k")
    with pytest.raises(ConfigError):
        KeyFile(tmp_path / "missing")


def ring() -> KeyRing:
    return asyncio.run(OpenRing.create((Passphrase("one"),), 1)).ring


def test_the_file_is_read_back_and_nothing_else_is() -> None:
    made = ring()
    data = encode_key_ring(made)
    assert decode_key_ring(data) == made
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(FormatError):
                decode_key_ring(damaged)
    with pytest.raises(FormatError):
        decode_key_ring(data + b" ")


_JSON = st.recursive(st.none() | st.integers() | st.text(max_size=8), lambda v: st.lists(v, max_size=3), max_leaves=4)


@given(st.sampled_from(["version", "slots", "keys", "next_slot"]), _JSON)
def test_a_ring_with_a_strange_member_is_a_format_error(name: str, value: object) -> None:
    content = json.loads(json.dumps(RING.as_json()))
    if content[name] == value:
        return
    content[name] = value
    try:
        decoded = KeyRing.from_json(content)
    except FormatError:
        return
    assert name == "next_slot" and decoded.next_slot > 1


RING = ring()


@pytest.mark.parametrize(
    "changed", [{"n": 1 << 40}, {"n": 3}, {"r": 1 << 30}, {"p": 1 << 20}, {"kdf": "md5"}, {"salt": "x"}, {"n": None}]
)
async def test_parameters_that_would_take_the_machine_are_refused(changed: dict[str, object]) -> None:
    slot = RING.slots[0]
    with pytest.raises(FormatError):
        await Passphrase("one").unwrap({**slot.parameters, **changed}, slot.wrapped)
