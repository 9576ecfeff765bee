"""Meta records, their index, and the files of a store put together again."""

from __future__ import annotations

import media_samples as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import FormatError
from mover.media.frames import iter_frames
from mover.media.header import DataType
from mover.media.meta import (
    EXTENT_CHUNK,
    ExtentAssembler,
    MetaRecord,
    MetaType,
    MetaWriter,
    StoreExtents,
    catalog_bodies,
    decode_catalog,
    decode_description,
    encode_description,
    extent_bodies,
    iter_meta_index,
    iter_meta_records,
    parse_json,
    parse_meta_record,
)


@st.composite
def store_files(draw: st.DrawFn) -> StoreExtents:
    """Extents that do not touch each other."""
    end, extents = 0, []
    for gap, data in draw(st.lists(st.tuples(st.integers(1, 50), st.binary(min_size=1, max_size=50)), max_size=5)):
        extents.append((end + gap, data))
        end += gap + len(data)
    return StoreExtents(draw(st.text("ab/", min_size=1)), end + draw(st.integers(0, 99)), tuple(extents))


def record_of(body: bytes) -> MetaRecord:
    return MetaRecord(MetaType.STORE_FILE, body, 48, len(body))


@given(st.lists(store_files(), max_size=4, unique_by=lambda file: file.path))
def test_files_round_trip(files: list[StoreExtents]) -> None:
    assembler = ExtentAssembler()
    for file in files:
        for body in extent_bodies(file):
            assembler.add(record_of(body))
    assert assembler.finish() == tuple(files)


def test_large_extents_are_cut_and_joined() -> None:
    data = bytes(range(256)) * (EXTENT_CHUNK // 256) + b"tail"
    file = StoreExtents("slog/sys/1", len(data) + 10, ((5, data),))
    writer = MetaWriter(made.PG, 3)
    for body in extent_bodies(file):
        writer.add(MetaType.STORE_FILE, body)
    meta, index = writer.finish()
    assembler = ExtentAssembler()
    records = list(iter_meta_records(iter_frames(meta, data_type=DataType.META)))
    assert len(records) == 2
    for record in records:
        assembler.add(record)
    assert assembler.finish() == (file,)
    entries = list(iter_meta_index(iter_frames(index, data_type=DataType.META_INDEX)))
    assert [(e.offset, e.data_length, e.task_id) for e in entries] == [(r.offset, r.length, 3) for r in records]
    for entry in entries:
        piece = meta[entry.offset : entry.offset + entry.data_length]
        assert piece.endswith(b"\x00")


@pytest.mark.parametrize("extents", [((5, b"abc"), (7, b"x")), ((5, b"abc"), (1, b"x")), ((98, b"abc"),)])
def test_extents_that_do_not_fit_are_not_written(extents: tuple[tuple[int, bytes], ...]) -> None:
    with pytest.raises(ValueError, match="extent"):
        list(extent_bodies(StoreExtents("f", 100, extents)))


def test_incomplete_files_never_come_out() -> None:
    file = StoreExtents("f", 100, ((0, b"a"), (10, b"b"), (20, b"c")))
    bodies = list(extent_bodies(file))
    for wrong in (bodies[:2], bodies[1:], [bodies[0], bodies[2]], [*bodies, bodies[0]], bodies * 2):
        assembler = ExtentAssembler()
        with pytest.raises(FormatError):
            for body in wrong:
                assembler.add(record_of(body))
            assembler.finish()
    other = list(extent_bodies(StoreExtents("g", 100, file.extents)))
    assembler = ExtentAssembler()
    assembler.add(record_of(bodies[0]))
    with pytest.raises(FormatError, match="the next chunk of 'f'"):
        assembler.add(record_of(other[1]))


def test_descriptions_and_catalogs() -> None:
    facts = {"name": "größe", "n": 1, "list": [1, None, True]}
    assert decode_description(encode_description(facts)) == facts
    rows = [{"table_id": i, "name": "x" * 1000} for i in range(2500)]
    bodies = list(catalog_bodies(rows))
    assert len(bodies) > 1
    assert [row for body in bodies for row in decode_catalog(body)] == rows
    assert [decode_catalog(body) for body in catalog_bodies([])] == [()]


@pytest.mark.parametrize("text", ['{"b":1,"a":2}', '{"a": 1}', "{", "NaN", '{"a":1,"a":1}', "[" * 100_000, "1.0e5"])
def test_json_that_is_not_canonical(text: str) -> None:
    with pytest.raises(FormatError):
        parse_json(text, "x")


@given(st.binary(max_size=120))
def test_random_records_give_format_errors_only(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_meta_record(data)
    for decode in (decode_description, decode_catalog, lambda body: ExtentAssembler().add(record_of(body))):
        try:
            decode(data)
        except FormatError:
            pass
