"""Damages a tree in one place, and says what a reader must report.

A kind of damage is ``<file>.<what>`` (``macro_block.header.data_length``, ``archive_data.entry.lost``). Which of the
files and which bit is decided by the seed. ``Finding.kind`` is one of

    header      a header or meta does not agree with its own checksum, or has an impossible value
    payload     the payload does not agree with the checksum in its header
    record      a checksummed record inside a sound payload does not (meta records, log entries, macro blocks)
    truncated   the file ends too early
    missing     a file that others refer to is not there
    reference   what an index says is not what is at the place it names
    gap, duplicate, order, chain, epoch     the log: ids, running checksum, leader epochs
    torn        the newest data file ends in the middle of a block: an end of log, and no damage

``silent``: nothing in the format covers the damaged bytes, so a reader may or may not report it, but must not crash or
tell the payload as something else.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from mover.store.sim.packing import dice
from tree31.build import Tree
from tree31.forms import common_header


@dataclass(frozen=True)
class Finding:
    """What must be reported: of which file, and what kind of thing."""

    path: str
    kind: str


@dataclass
class Damaged:
    """``tree`` with one damage. One of ``findings`` at least must be reported; none when it is ``silent``."""

    tree: Tree
    kind: str
    findings: list[Finding]
    silent: bool = False


Action = Callable[[Tree, Random], "Damaged | None"]

HEADER = {
    "data_type": (0, 2),
    "header_version": (2, 2),
    "data_version": (4, 2),
    "compressor_type": (6, 2),
    "header_length": (8, 2),
    "header_checksum": (10, 2),
    "unused": (12, 4),
    "data_length": (16, 8),
    "data_zlength": (24, 8),
    "data_checksum": (32, 8),
    "align_length": (40, 8),
}
UNCHECKED = ("data_version", "unused")
FRAMED = {
    "macro_block": r"/macro_block_\d+\.\d+$",
    "macro_block_index": r"/macro_block_index_\d+$",
    "meta_file": r"/meta_file_\d+$",
    "meta_index_file": r"/meta_index_file_\d+$",
}
INFOS = (
    "cluster_data_backup_info",
    "tenant_data_backup_info",
    "backup_set_info",
    "sys_pg_list",
    "normal_pg_list",
    "tenant_info",
    "tenant_name_info",
    "tenant_locality_info",
    "tenant_diagnose_info",
    "cluster_clog_backup_info",
    "tenant_clog_backup_info",
    "cluster_backup_piece_info",
    "backup_piece_info",
    "single_piece_info",
)
BLOCK_META = (
    "magic:2 version:2 total_len:4 timestamp:8 clog_epoch_id:8 accum_checksum:8 min_log_id:8 min_log_ts:8 max_log_id:8 "
    "max_checkpoint_ts:8 max_log_submit_ts:8 input_bytes:8 output_bytes:8 data_checksum:8 meta_checksum:8"
)
INDEX_RECORD = (
    "magic:2 record_len:2 version:2 is_valid:2 data_file_id:8 input_bytes:8 output_bytes:8 clog_epoch_id:8 "
    "accum_checksum:8 min_log_id:8 min_log_ts:8 max_log_id:8 max_checkpoint_ts:8 max_log_submit_ts:8 round_start_ts:8 "
    "round_start_log_id:8 round_snapshot_version:8 round_log_submit_ts:8 round_clog_epoch_id:8 "
    "round_accum_checksum:8 checksum:8"
)
ENTRY = (
    "magic:2 version:2 log_type:4 table_id:8 part_id:4 assist_id:4 log_id:8 data_len:8 generation_ts:8 epoch_id:8 "
    "ip_version:1 server:8 proposal_ts:8 submit_ts:8 data_checksum:8 freeze_version:8 header_checksum:8"
)
ARCHIVE_KEY = "magic:2 version:2 is_first_piece:2 reserved:2 max_index_file_id:8 index_info:144 checksum:8"
START_TS = "checksum:8 round:8 timestamp:8"


def fields(text: str) -> dict[str, tuple[int, int]]:
    """Offsets and widths of "name:width" words."""
    out, at = {}, 0
    for word in text.split():
        name, width = word.split(":")
        out[name] = (at, int(width))
        at += int(width)
    return out


def matching(tree: Tree, pattern: str, *, least: int = 1) -> list[str]:
    return [path for path in sorted(tree.files) if re.search(pattern, path) and len(tree.files[path]) >= least]


def flip(data: bytes, choose: Random, low: int, high: int) -> bytes:
    """One bit in [low, high) is another."""
    at = choose.randrange(low, high)
    return data[:at] + bytes([data[at] ^ 1 << choose.randrange(8)]) + data[at + 1 :]


def changed(tree: Tree, path: str, data: bytes | None, kind: str, *, silent: bool = False) -> Damaged:
    copy = tree.copy()
    if data is None:
        del copy.files[path]
    else:
        copy.files[path] = data
    return Damaged(copy, "", [] if silent else [Finding(path, kind)], silent)


def frames(data: bytes) -> list[tuple[int, int, int]]:
    """(start, payload length, padding) of each frame, the end mark too."""
    out, at = [], 0
    while at < len(data):
        length, align = struct.unpack_from("<q", data, at + 24)[0], struct.unpack_from("<q", data, at + 40)[0]
        out.append((at, length, align))
        at += 48 + length + align
    return out


def blocks(data: bytes) -> list[tuple[int, int]]:
    """(start, bytes with the trailing offset) of each archive block."""
    out, at = [], 0
    while at + 104 <= len(data):
        (total,) = struct.unpack_from(">i", data, at + 4)
        out.append((at, total + 4))
        at += total + 4
    return out


def entries(payload: bytes) -> list[bytes]:
    """The log entries of a raw payload."""
    out, at = [], 0
    while at < len(payload):
        size = 105 + struct.unpack_from(">q", payload, at + 32)[0]
        out.append(payload[at : at + size])
        at += size
    return out


def _framed(name: str) -> dict[str, Action]:
    pattern = FRAMED[name]

    def header_field(field: str, end_mark: bool) -> Action:
        def act(tree: Tree, choose: Random) -> Damaged | None:
            path = choose.choice(matching(tree, pattern))
            data = tree.files[path]
            places = frames(data)
            start = places[-1][0] if end_mark else choose.choice(places[:-1])[0]
            at, width = HEADER[field]
            return changed(
                tree, path, flip(data, choose, start + at, start + at + width), "header", silent=field in UNCHECKED
            )

        return act

    def payload(tree: Tree, choose: Random) -> Damaged | None:
        path = choose.choice(matching(tree, pattern))
        start, length, _ = choose.choice(frames(tree.files[path])[:-1])
        return changed(tree, path, flip(tree.files[path], choose, start + 48, start + 48 + length), "payload")

    def padding(tree: Tree, choose: Random) -> Damaged | None:
        path = choose.choice(matching(tree, pattern))
        padded = [one for one in frames(tree.files[path])[:-1] if one[2]]
        if not padded:
            return None
        start, length, align = choose.choice(padded)
        low = start + 48 + length
        return changed(tree, path, flip(tree.files[path], choose, low, low + align), "payload", silent=True)

    def truncate(where: str) -> Action:
        def act(tree: Tree, choose: Random) -> Damaged | None:
            path = choose.choice(matching(tree, pattern))
            data = tree.files[path]
            places = frames(data)
            start, length, _ = choose.choice(places[:-1])
            cut = {
                "header": lambda: start + choose.randrange(1, 48),
                "payload": lambda: start + 48 + choose.randrange(length),
                "end_mark": lambda: places[-1][0],
                "nothing": lambda: 0,
            }[where]()
            # An incomplete end of a meta index is tolerated: another task's may have the entries.
            tolerated = name == "meta_index_file" and where == "end_mark"
            return changed(tree, path, data[:cut], "truncated", silent=tolerated)

        return act

    def missing(tree: Tree, choose: Random) -> Damaged | None:
        return changed(tree, choose.choice(matching(tree, pattern)), None, "missing")

    def swapped(tree: Tree, choose: Random) -> Damaged | None:
        paths = matching(tree, pattern)
        one, other = choose.sample(paths, 2)
        if tree.files[one] == tree.files[other]:
            return None
        copy = tree.copy()
        copy.files[one], copy.files[other] = tree.files[other], tree.files[one]
        # An index and the macro files beside it contradict each other: either may be named.
        places = {path.rsplit("/", 1)[0] for path in (one, other)}
        beside = [path for path in matching(tree, FRAMED["macro_block"]) if path.rsplit("/", 1)[0] in places]
        named = [one, other, *(beside if name == "macro_block_index" else ())]
        return Damaged(copy, "", [Finding(path, "reference") for path in named])

    def frame_lost(tree: Tree, choose: Random) -> Damaged | None:
        path = choose.choice(matching(tree, pattern))
        data = tree.files[path]
        start, length, align = choose.choice(frames(data)[:-1])
        return changed(tree, path, data[:start] + data[start + 48 + length + align :], "reference")

    def behind(tree: Tree, choose: Random) -> Damaged | None:
        path = choose.choice(matching(tree, pattern))
        return changed(tree, path, tree.files[path] + choose.randbytes(4096), "header", silent=True)

    actions: dict[str, Action] = {f"header.{field}": header_field(field, False) for field in HEADER}
    actions |= {f"end_mark.{field}": header_field(field, True) for field in HEADER}
    actions |= {f"truncated.{where}": truncate(where) for where in ("header", "payload", "end_mark", "nothing")}
    actions |= {"payload": payload, "padding": padding, "missing": missing, "swapped": swapped}
    actions |= {"frame_lost": frame_lost, "stale_bytes_behind": behind}
    return {f"{name}.{what}": act for what, act in actions.items()}


def _info(name: str) -> dict[str, Action]:
    pattern = rf"/{name}$"

    def header_field(field: str) -> Action:
        def act(tree: Tree, choose: Random) -> Damaged | None:
            path = choose.choice(matching(tree, pattern))
            at, width = HEADER[field]
            damaged = flip(tree.files[path], choose, at, at + width)
            return changed(tree, path, damaged, "header", silent=field in UNCHECKED)

        return act

    def payload(tree: Tree, choose: Random) -> Damaged | None:
        path = choose.choice(matching(tree, pattern))
        return changed(tree, path, flip(tree.files[path], choose, 48, len(tree.files[path])), "payload")

    def truncated(tree: Tree, choose: Random) -> Damaged | None:
        path = choose.choice(matching(tree, pattern))
        return changed(tree, path, tree.files[path][: choose.randrange(len(tree.files[path]))], "truncated")

    def length(tree: Tree, choose: Random) -> Damaged | None:
        """A sound header around a body whose object announces more than there is."""
        path = choose.choice(matching(tree, pattern))
        data = tree.files[path]
        data_type, _, version = struct.unpack_from("<HHH", data)
        body = bytearray(data[48:])
        body[1:6] = b"\xff\xff\xff\xff\x0f"
        return changed(tree, path, common_header(data_type, bytes(body), data_version=version) + bytes(body), "record")

    actions: dict[str, Action] = {f"header.{field}": header_field(field) for field in HEADER}
    actions |= {"payload": payload, "truncated": truncated}
    if name not in ("tenant_diagnose_info", "tenant_name_info"):
        actions["length_too_great"] = length
    return {f"{name}.{what}": act for what, act in actions.items()}


ACTIONS: dict[str, Action] = {}
for _name in FRAMED:
    ACTIONS |= _framed(_name)
for _name in INFOS:
    ACTIONS |= _info(_name)


def kinds(tree: Tree) -> list[str]:
    """The kinds of damage that ``tree`` can take."""
    from tree31.damage_log import LOG_ACTIONS

    present = []
    for name in (*ACTIONS, *LOG_ACTIONS):
        stem = name.split(".")[0]
        pattern = FRAMED.get(stem) or {
            "archive_data": r"/clog/.*/data/",
            "archive_index": r"/clog/.*/index/",
            "archive_key": r"/archive_key/",
            "clog_info": r"/clog_info/",
        }.get(stem, rf"/{stem}$")
        if matching(tree, pattern, least=1):
            present.append(name)
    return present


def damage(tree: Tree, kind: str, seed: int) -> Damaged:
    """A copy of ``tree`` with damage of ``kind``.

    Raises:
        LookupError: the tree has nothing that can be damaged so.
    """
    from tree31.damage_log import LOG_ACTIONS

    choose = dice("damage", kind, seed)
    action = ACTIONS.get(kind) or LOG_ACTIONS[kind]
    for _ in range(50):
        damaged = action(tree, choose)
        if damaged is not None:
            damaged.kind = kind
            return damaged
    raise LookupError(f"nothing in the tree can take {kind}")
