"""The exact SCN at which a transaction committed, from the engine's own log files; nothing of mover is used.

A small transaction is one log entry: redo and commit together. So the entry that holds a row's text has the SCN of its
commit. Layout of a log file: see the PALF section of the store notes in FORMAT.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_GROUP = struct.Struct(">HhiQQQQQ")
_ENTRY = struct.Struct(">HhiQQQ")
_PAGE = 4096


@dataclass(frozen=True)
class Entry:
    """One log entry: its SCN, the LSN of its group, its place in the group, and how many the group holds."""

    scn: int
    group_lsn: int
    position: int
    siblings: int
    data: bytes


def entries(base_dir: Path, needle: bytes) -> Iterator[Entry]:
    """Entries of the store's log that contain ``needle``, oldest first."""
    log_dir = base_dir / "store" / "redo" / "sys" / "log_stream" / "log"
    for path in sorted((p for p in log_dir.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name)):
        data = path.read_bytes()
        base = int(path.name) * ((64 << 20) - _PAGE) - _PAGE
        offset = _PAGE
        while offset + _GROUP.size <= len(data):
            magic, _, size, *_ = _GROUP.unpack_from(data, offset)
            if magic != 0x4752:
                break
            start = offset + _GROUP.size
            if data.find(needle, start, start + size) >= 0:
                found = []
                at = start
                while at < start + size:
                    magic, _, length, scn, *_ = _ENTRY.unpack_from(data, at)
                    assert magic == 0x4C48, f"{path}: no log entry at {at}"
                    at += _ENTRY.size
                    found.append((scn, data[at : at + length]))
                    at += length
                for position, (scn, body) in enumerate(found):
                    if needle in body:
                        yield Entry(scn, base + offset, position, len(found), body)
            offset = start + size
