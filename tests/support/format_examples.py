"""The worked examples of FORMAT.md: taken out of the page, or made anew.

``python tests/support/format_examples.py`` rewrites the dumps in FORMAT.md after a deliberate change of the format.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "FORMAT.md"
_EXAMPLE = re.compile(
    r"<!-- example: (?P<name>[a-z_ ]+) -->\n```\n(?P<dump>.*?)\n```\n```json\n(?P<json>.*?)\n```\n", re.DOTALL
)


def hexdump(data: bytes) -> str:
    """Sixteen bytes a line; ``*`` stands for lines equal to the one above; the last line is the length."""
    lines: list[str] = []
    before = b""
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        if row == before and at + 16 < len(data):
            if lines[-1] != "*":
                lines.append("*")
            continue
        text = "".join(chr(b) if 0x20 < b < 0x7F and b != 0x60 else "." for b in row)
        lines.append(f"{at:08x}  {row.hex(' '):47}  {text}")
        before = row
    lines.append(f"{len(data):08x}")
    return "\n".join(lines)


def undump(dump: str) -> bytes:
    """The bytes of a hexdump."""
    data = b""
    repeat = False
    for line in dump.split("\n"):
        if line == "*":
            repeat = True
            continue
        offset = int(line[:8], 16)
        if repeat:
            data += data[-16:] * ((offset - len(data)) // 16)
            repeat = False
        assert len(data) == offset, line
        data += bytes.fromhex(line[10:57])
    return data


def examples() -> Iterator[tuple[str, bytes, Any]]:
    """(name, bytes, decoded) of every example in the page."""
    for match in _EXAMPLE.finditer(PAGE.read_text()):
        yield match["name"], undump(match["dump"]), json.loads(match["json"])


def decode(name: str, data: bytes) -> Any:
    """What an example decodes to, strictly."""
    from mover.media.header import parse_header
    from mover.media.inspect import records
    from mover.media.jsonable import jsonable

    if name == "end mark":
        return jsonable(parse_header(data))
    import sealed_samples as sealed

    if name.endswith("encrypted"):
        path, _ = sealed.sealed_samples()[name]
        return [*records(None, data, strict=True), *records(path, data, strict=True, keys=sealed.KEYS)]
    return list(records(None, data, strict=True))


def made() -> dict[str, bytes]:
    """The bytes of every example."""
    import media_samples as samples
    import sealed_samples as sealed

    from mover.media.frames import end_mark
    from mover.media.round_record import LogGap, RoundRecord

    files = {name: content for name, (_, content) in (samples.samples() | sealed.sealed_samples()).items()}
    gap = LogGap(100, 200, samples.T0 * 1000, samples.T0, "recycled")
    record = RoundRecord(samples.ROUND, "host/7/1", 3, samples.T0, 0, 1, 4096, samples.T0 * 1000, gap=gap)
    return files | {
        "end mark": end_mark(),
        "macro": samples.macro_file(5),
        "archive zstd": files["archive zstd"],
        "round record": record.encode(),
    }


def example(name: str, data: bytes) -> str:
    decoded = decode(name, data)
    rows = decoded if isinstance(decoded, list) else None
    text = (
        json.dumps(decoded)
        if rows is None
        else "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"
    )
    return f"<!-- example: {name} -->\n```\n{hexdump(data)}\n```\n```json\n{text}\n```\n"


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    content = made()
    text = source.read_text()
    text = re.sub(r"\{\{([a-z_ ]+)\}\}\n", lambda m: example(m[1], content[m[1]]), text)
    text = _EXAMPLE.sub(lambda m: example(m["name"], content[m["name"]]), text)
    PAGE.write_text(text)
