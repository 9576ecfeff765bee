"""FORMAT.md tells the truth: every dump in it decodes to the fields printed behind it."""

from __future__ import annotations

import re
from typing import Any

import format_examples
import pytest

EXAMPLES = {name: (data, fields) for name, data, fields in format_examples.examples()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_decodes_to_its_fields(name: str) -> None:
    data, fields = EXAMPLES[name]
    found: Any = format_examples.decode(name, data)
    assert found == fields


def test_every_example_of_the_page_was_found() -> None:
    page = format_examples.PAGE.read_text()
    assert len(EXAMPLES) == len(re.findall("<!-- example:", page)) == 24
    assert "{{" not in page


@pytest.mark.parametrize("name", [name for name in EXAMPLES if "zstd" not in name])
def test_the_writers_still_make_these_bytes(name: str) -> None:
    """A change of the format changes the page. (What zstd makes depends on its version, so that one is only read.)"""
    assert format_examples.made()[name] == EXAMPLES[name][0]


def test_a_dump_survives_its_round_trip() -> None:
    for data in (b"", b"a" * 16, bytes(64), bytes(100), b"x" * 7 + bytes(4089), b"0123456789abcdef" * 3):
        assert format_examples.undump(format_examples.hexdump(data)) == data


def test_the_varint_table_of_the_page() -> None:
    from mover.media import serial

    rows = {
        "0": serial.U64.put(0),
        "300": serial.U64.put(300),
        "-1 as i64": serial.I64.put(-1),
        "length 300, padded": serial.padded_length(300),
        'vstr "ab"': serial.TEXT.put("ab"),
        'fixed-length string "ab"': serial.FIXED_STRING.put("ab"),
    }
    page = format_examples.PAGE.read_text()
    for text, data in rows.items():
        assert f"| {text} | `{data.hex(' ')}` |" in page
