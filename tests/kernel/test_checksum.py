import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twins import NATIVE, TWINS, same

POLY = 0x82F63B78


def crc_by_bits(data: bytes, seed: int) -> int:
    """The definition: one bit at a time, no inversion."""
    for byte in data:
        seed ^= byte
        for _ in range(8):
            seed = seed >> 1 ^ (POLY if seed & 1 else 0)
    return seed


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_crc_vectors(twin):
    assert twin.ob_crc64(b"") == 0
    assert twin.ob_crc64(b"", 7) == 7
    assert twin.ob_crc64(b"123456789") == 0x58E3FA20
    assert twin.ob_crc64(bytes(100_000)) == 0
    assert twin.ob_crc64(b"123456789", 0xFFFFFFFF) ^ 0xFFFFFFFF == 0xE3069283


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_xxh3_vectors(twin):
    assert twin.xxh3_128(b"").hex() == "99aa06d3014798d86001c324468d497f"
    assert twin.xxh3_128(b"a").hex() == "a96faf705af16834e6c632b61e964e1f"


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_crc_is_its_definition(data, seed):
    assert same("ob_crc64", data, seed) == crc_by_bits(data, seed)


# Lengths around the lanes of the three-way loop (3 * 256 and 3 * 8192), where the joining tables are used.
@given(
    st.sampled_from([767, 768, 769, 1536, 24_575, 24_576, 24_577, 24_576 + 768 + 9, 100_003]),
    st.integers(0, 15),
    st.integers(0, 2**64 - 1),
    st.integers(0, 255),
)
def test_crc_of_long_data_agrees_at_any_alignment(size, skip, seed, salt):
    data = memoryview(hashlib.shake_128(bytes([salt])).digest(size + skip))[skip:]
    assert same("ob_crc64", data, seed) == same("ob_crc64", data[100:], same("ob_crc64", data[:100], seed))


def crc64_by_bits(data: bytes) -> int:
    crc = 2**64 - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xC96C5795D7870F42 if crc & 1 else 0)
    return crc ^ (2**64 - 1)


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_crc64_vectors(twin):
    assert twin.crc64_xz(b"") == 0
    assert twin.crc64_xz(b"", 7) == 7
    assert twin.crc64_xz(b"123456789") == 0x995DC9BBDF1939FA


@given(st.binary(max_size=400))
def test_crc64_is_its_definition(data):
    assert same("crc64_xz", data) == crc64_by_bits(data)


# Lengths around the folds: 256 where they begin, then 128 bytes in eight lanes, then 16 in one, then the table.
@given(
    st.sampled_from([255, 256, 257, 271, 272, 384, 399, 400, 511, 8191, 8192, 10_007]),
    st.integers(0, 15),
    st.integers(0, 2**64 - 1),
    st.integers(0, 255),
)
def test_crc64_of_long_data_agrees_at_any_alignment(size, skip, seed, salt):
    data = memoryview(hashlib.shake_128(bytes([salt])).digest(size + skip))[skip:]
    whole = same("crc64_xz", data, seed)
    assert whole == same("crc64_xz", data[100:], same("crc64_xz", data[:100], seed))
    assert whole == same(
        "crc64_xz_combine", same("crc64_xz", data[:100], seed), same("crc64_xz", data[100:]), size - 100
    )
    if NATIVE is not None:
        from mover._native import checksum

        assert checksum._crc64_xz_portable(data, seed) == whole


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**50))
def test_crc64_combine_agrees(first, second, length):
    same("crc64_xz_combine", first, second, length)


@given(st.lists(st.binary(max_size=3000), max_size=8))
def test_xxh3_in_pieces(pieces):
    whole = b"".join(pieces)
    expected = same("xxh3_128", whole)
    for twin in TWINS.values():
        state = twin.Xxh3_128()
        for piece in pieces:
            state.update(piece)
            state.digest()
        assert state.digest() == expected


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda b: memoryview(bytearray(b))])
def test_any_contiguous_buffer(twin, make):
    data = bytes(range(256)) * 64
    assert twin.ob_crc64(make(data)) == twin.ob_crc64(data)
    assert twin.xxh3_128(make(data)) == twin.xxh3_128(data)


def test_portable_crc_is_compiled_in_and_agrees():
    """The table code is what machines without the instruction run; here it can only be reached by hand."""
    if NATIVE is None:
        pytest.skip("the extension is not built")
    from mover._native import checksum

    data = hashlib.shake_128(b"x").digest(10_007)
    assert checksum._ob_crc64_portable(data, 5) == checksum.ob_crc64(data, 5)
