import random
import threading

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from twins import NATIVE, PURE, TWINS, same

from mover.errors import FormatError, IntegrityError

texts = st.one_of(
    st.binary(max_size=2000),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=40), st.integers(0, 5000)),
)
pairs = [(a, b) for a in TWINS.values() for b in TWINS.values()]


@given(texts, st.sampled_from([-7, -1, 1, 3, 9]), st.sampled_from(pairs))
def test_zstd_round_trip_between_twins(data, level, pair):
    stored = pair[0].zstd_compress(data, level)
    assert pair[1].zstd_decompress(stored, len(data)) == data


@given(texts, st.sampled_from(pairs))
def test_lz4_round_trip_between_twins(data, pair):
    stored = pair[0].lz4_compress(data)
    assert pair[1].lz4_decompress(stored, len(data)) == data


@given(texts, st.integers(-3, 3))
def test_another_size_is_an_integrity_error(data, wrong):
    if wrong == 0:
        return
    assert isinstance(same("zstd_decompress", PURE.zstd_compress(data, 1), len(data) + wrong), IntegrityError)
    assert isinstance(same("lz4_decompress", PURE.lz4_compress(data), len(data) + wrong), IntegrityError)


@given(texts, st.binary(min_size=1, max_size=20))
def test_bytes_behind_the_frame_are_an_integrity_error(data, more):
    assert isinstance(same("zstd_decompress", PURE.zstd_compress(data, 1) + more, len(data)), IntegrityError)


def test_two_frames_are_not_one():
    frame = PURE.zstd_compress(b"x" * 100, 1)
    assert isinstance(same("zstd_decompress", frame + frame, 200), IntegrityError)


def test_skippable_frame_is_refused():
    assert isinstance(same("zstd_decompress", bytes.fromhex("502a4d1804000000") + b"abcd", 0), IntegrityError)


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_frame_that_does_not_state_its_size(size):
    data = b"ab" * (size // 2) + b"c" * (size % 2)
    frame = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(data)
    assert same("zstd_decompress", frame, size) == data
    assert isinstance(same("zstd_decompress", frame, size + 1), IntegrityError)


@pytest.mark.parametrize("size", [-1, 1 << 30, 1 << 62, 1 << 70])
def test_impossible_claim_is_refused_before_anything_is_allocated(size):
    assert isinstance(same("zstd_decompress", PURE.zstd_compress(b"abc", 1), size), IntegrityError)
    assert isinstance(same("lz4_decompress", PURE.lz4_compress(b"abc"), size), IntegrityError)


@given(st.binary(max_size=300), st.integers(0, 1000))
def test_random_bytes_never_decompress_to_a_crash(data, size):
    for name in ("zstd_decompress", "lz4_decompress"):
        for bytes_in in (data, b"\x28\xb5\x2f\xfd" + data):
            outcome = same(name, bytes_in, size)
            assert isinstance(outcome, IntegrityError) or len(outcome) == size


@given(texts, st.data())
def test_mutated_frame_is_an_error_or_has_the_size(data, draw):
    stored = bytearray(PURE.zstd_compress(data, 1))
    at = draw.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= draw.draw(st.integers(1, 255))
    for twin in TWINS.values():
        try:
            assert len(twin.zstd_decompress(stored, len(data))) == len(data)
        except IntegrityError:
            pass


@pytest.mark.parametrize("level", [-8, 23, 1 << 40])
def test_level_out_of_range(level):
    assert isinstance(same("zstd_compress", b"", level), ValueError)


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_contexts_are_per_thread(twin):
    """Threads that compress at the same time do not spoil each other's frames."""
    wrong = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(20):
            data = rng.randbytes(5000) * rng.randrange(1, 20)
            if twin.zstd_decompress(twin.zstd_compress(data, rng.choice([1, 3])), len(data)) != data:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@given(st.integers(-(2**63), 2**64 - 1), st.binary(max_size=12), st.binary(max_size=12))
def test_varint_round_trip(value, before, after):
    encoded = same("encode_vi64", value)
    assert same("decode_vi64", before + encoded + after, len(before)) == (value % 2**64, len(before) + len(encoded))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**64 - 1, "ffffffffffffffffff01"), (-1, "ff" * 9 + "01")],
)
def test_varint_vectors(value, encoded):
    assert same("encode_vi64", value).hex() == encoded


@given(st.binary(max_size=14), st.integers(-2, 16))
def test_varint_of_any_bytes(data, offset):
    outcome = same("decode_vi64", data, offset)
    assert isinstance(outcome, FormatError) or outcome[1] <= len(data)


@pytest.mark.parametrize(
    "encoded", ["", "80", "ff" * 9, "ff" * 10, "ff" * 11 + "01", "ffffffffffffffffff02", "ff" * 9 + "7f"]
)
def test_varint_that_does_not_decode(encoded):
    assert isinstance(same("decode_vi64", bytes.fromhex(encoded), 0), FormatError)


def test_padded_varint_is_accepted():
    assert same("decode_vi64", bytes.fromhex("8580808000"), 0) == (5, 5)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_varint_out_of_range(value):
    assert isinstance(same("encode_vi64", value), ValueError)


def test_native_is_under_test():
    """A suite that silently runs on one twin proves nothing: only a MOVER_PURE build may lack the extension."""
    import os

    assert NATIVE is not None or os.environ.get("MOVER_PURE", "") not in ("", "0")
