"""The manifest: streamed both ways, and nothing in it can be exchanged unnoticed."""

from __future__ import annotations

import media_samples as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import FormatError, IntegrityError
from mover.kernel import Xxh3_128, xxh3_128
from mover.media.frames import DATA_BUFFER, end_mark, frame, iter_frames
from mover.media.header import DataType
from mover.media.manifest import (
    BLOCK_ROW_SIZE,
    ManifestBlock,
    ManifestReader,
    ManifestWriter,
    SetFacts,
    read_manifest,
)

u64 = st.integers(0, 2**64 - 1)
digests = st.binary(min_size=16, max_size=16)
blocks = st.builds(
    ManifestBlock,
    u64,
    st.integers(0, 65535),
    st.integers(0, 2 << 20),
    u64,
    u64,
    st.integers(-(2**63), 2**63 - 1),
    u64,
    digests,
)
files = st.tuples(st.text("ab/", min_size=1, max_size=9), st.integers(0, 2**62), digests).filter(
    lambda row: all(row[0].split("/"))
)


@given(st.lists(blocks, max_size=5), st.lists(files, max_size=5, unique_by=lambda row: row[0]), st.integers(1, 9999))
def test_round_trip_in_any_pieces(rows, table, step: int) -> None:
    facts = made.facts(parameters={"a": "ü"}, proof={"x": [1, {"y": None}]}, extra={"k": 1.5})
    writer = ManifestWriter(facts)
    writer.add_blocks(rows)
    for row in table:
        writer.add_file(*row)
    data = writer.finish()
    found = read_manifest(data[i : i + step] for i in range(0, len(data), step))
    assert found.facts == facts
    assert list(found.blocks) == rows
    assert [(f.path, f.size, f.digest) for f in found.files] == sorted(table)
    assert found.root == writer.root
    assert found.root.block_bytes == sum(row.used_length for row in rows)
    whole = Xxh3_128()
    for digest in [row.digest for row in rows] + [row[2] for row in sorted(table)]:
        whole.update(digest)
    assert found.root.digest == whole.digest()


def test_a_large_table_is_streamed() -> None:
    count = DATA_BUFFER // BLOCK_ROW_SIZE + 1000
    writer = ManifestWriter(made.facts())
    pieces = []
    for i in range(count):
        writer.add_block(ManifestBlock(i, 1, 1, 0, 0, 0, 0, bytes(16)))
        if i % 10_000 == 0:
            pieces.append(writer.take())
    for i in range(5000):
        writer.add_file(f"1/data/{i}", i, bytes(16))
    pieces.append(writer.finish())
    reader = ManifestReader()
    seen = 0
    for piece in pieces:
        for row in reader.feed(piece):
            assert row.block_index == seen
            seen += 1
    assert reader.finish().block_count == seen == count
    assert len(reader.files) == 5000


def _swap(data: bytes, change) -> bytes:
    parts = [(f.header.data_type, f.payload) for f in iter_frames(data)]
    return b"".join(frame(kind, payload) for kind, payload in change(parts)) + end_mark()


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts[1:],  # no facts
        lambda parts: parts[:-1],  # no root
        lambda parts: [parts[0], *parts[2:]],  # a table is missing
        lambda parts: [parts[0], parts[2], parts[1], parts[3]],  # out of order
        lambda parts: [parts[0], *parts],  # facts twice
        lambda parts: [*parts, parts[-1]],  # root twice
        lambda parts: [parts[0], (201, parts[1][1][64:] + parts[1][1][:64]), *parts[2:]],  # rows swapped
        lambda parts: [parts[0], (201, parts[1][1][:-1]), *parts[2:]],  # half a row
        lambda parts: [*parts[:-1], (203, parts[-1][1][:-1] + bytes([parts[-1][1][-1] ^ 1]))],  # another digest
        lambda parts: [*parts[:-1], (203, parts[-1][1][:-1])],
        lambda parts: [*parts, (int(DataType.META), b"x")],
    ],
)
def test_frames_cannot_be_exchanged(change) -> None:
    """Each frame by itself is sound here: only the manifest's own rules are left to notice."""
    with pytest.raises(IntegrityError):
        read_manifest(_swap(made.manifest_file(), change))


def test_a_newer_version_is_named() -> None:
    writer = ManifestWriter(made.facts(version=2))
    with pytest.raises(FormatError, match="manifest version 2"):
        read_manifest(writer.finish())


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../../x", "a//b"])
def test_files_outside_the_tree_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="unsafe"):
        ManifestWriter(made.facts()).add_file(path, 1, bytes(16))


def test_a_hostile_path_is_refused_when_read() -> None:
    writer = ManifestWriter(made.facts())
    writer.add_file("aa/aa/etc/passwd", 1, xxh3_128(b""))
    data = _swap(writer.finish(), lambda parts: [(k, p.replace(b"aa/aa", b"../..")) for k, p in parts])
    with pytest.raises(FormatError, match="unsafe"):
        read_manifest(data)


def test_misuse_is_refused() -> None:
    writer = ManifestWriter(made.facts())
    writer.add_file("a", 1, bytes(16))
    with pytest.raises(ValueError, match="before files"):
        writer.add_block(ManifestBlock(1, 1, 1, 0, 0, 0, 0, bytes(16)))
    writer.add_file("a", 1, bytes(16))
    with pytest.raises(ValueError, match="twice"):
        writer.finish()
    with pytest.raises(ValueError, match="digest"):
        ManifestWriter(made.facts()).add_block(ManifestBlock(1, 1, 1, 0, 0, 0, 0, b""))
    with pytest.raises(FormatError, match="before its facts"):
        _ = ManifestReader().facts


def test_only_uncompressed_sets_are_readable_by_oceanbase() -> None:
    labels: dict[str, SetFacts] = {name: made.facts(compression=name) for name in ("none", "auto", "zstd:3")}
    assert [name for name, facts in labels.items() if facts.readable_by_oceanbase] == ["none"]
