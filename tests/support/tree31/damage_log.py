"""Damages of the log archive: blocks, entries, index records, keys. See ``damage``."""

from __future__ import annotations

import struct
from random import Random

from mover.store.sim.packing import crc
from tree31.archives import archive_key, index_record
from tree31.build import Tree
from tree31.damage import (
    ARCHIVE_KEY,
    BLOCK_META,
    ENTRY,
    INDEX_RECORD,
    START_TS,
    Action,
    Damaged,
    Finding,
    blocks,
    changed,
    entries,
    fields,
    flip,
    matching,
)

DATA, INDEX, KEY, CLOG_INFO = r"/clog/.*/data/\d+/\d+/\d+$", r"/clog/.*/index/", r"/archive_key/", r"/clog_info/"
_KICKOFF = 302
_PATCHED = (103, 108)
"""NOP and TRUNCATE: OceanBase patches their submit time and leaves the header's checksum, so that proves nothing."""


def sealed(meta: bytes, payload: bytes, at: int, **new: int) -> bytes:
    """A block with the numbers of ``meta`` but those in ``new``, sums made right again."""
    values = list(struct.unpack(">hhi11qq", meta))
    names = list(fields(BLOCK_META))
    for name, value in new.items():
        values[names.index(name)] = value
    values[2] = 104 + len(payload)
    values[13] = crc(payload)
    sums = crc(struct.pack("<hhi11q", *values[:14]))
    return struct.pack(">hhi11qq", *values[:14], sums) + payload + struct.pack(">i", at)


def newest(tree: Tree, path: str) -> bool:
    """Is ``path`` a data file without an index record?"""
    return path.rsplit("/", 1)[0] + f"/{int(path.rsplit('/', 1)[1]) + 1}" not in tree.files


def raw_block(tree: Tree, choose: Random, least: int = 1) -> tuple[str, int, int, bytes, bytes] | None:
    """(path, start, size, meta, payload) of a block whose payload is entries, ``least`` of them, and no kickoff."""
    path = choose.choice(matching(tree, DATA, least=105))
    data = tree.files[path]
    start, size = choose.choice(blocks(data) or [(0, 0)])
    payload = data[start + 104 : start + size - 4]
    if payload[:2] != b"ER" or struct.unpack_from(">i", payload, 4)[0] == _KICKOFF or len(entries(payload)) < least:
        return None
    return path, start, size, data[start : start + 104], payload


def replaced(tree: Tree, found: tuple[str, int, int, bytes, bytes], payload: bytes, kind: str, **new: int) -> Damaged:
    """The block with another payload, its own sums right; later blocks move."""
    path, start, _, meta, _ = found
    data = tree.files[path]
    out = data[:start] + sealed(meta, payload, start, **new)
    for at, length in blocks(data):
        if at > start:
            out += sealed(data[at : at + 104], data[at + 104 : at + length - 4], len(out))
    return changed(tree, path, out, kind)


def _block_field(field: str) -> Action:
    at, width = fields(BLOCK_META)[field]

    def act(tree: Tree, choose: Random) -> Damaged | None:
        path = choose.choice(matching(tree, DATA, least=105))
        start, _ = choose.choice(blocks(tree.files[path]) or [(0, 0)])
        return changed(tree, path, flip(tree.files[path], choose, start + at, start + at + width), "header")

    return act


def _block_payload(tree: Tree, choose: Random) -> Damaged | None:
    path = choose.choice(matching(tree, DATA, least=105))
    start, size = choose.choice(blocks(tree.files[path]) or [(0, 0)])
    return changed(tree, path, flip(tree.files[path], choose, start + 104, start + size - 4), "payload")


def _block_offset(tree: Tree, choose: Random) -> Damaged | None:
    path = choose.choice(matching(tree, DATA, least=105))
    start, size = choose.choice(blocks(tree.files[path]) or [(0, 0)])
    end = start + size
    return changed(tree, path, flip(tree.files[path], choose, end - 4, end), "header", silent=True)


def _entry_field(field: str) -> Action:
    at, width = fields(ENTRY)[field]

    def act(tree: Tree, choose: Random) -> Damaged | None:
        found = raw_block(tree, choose)
        if found is None:
            return None
        payload = found[4]
        run = entries(payload)
        chosen = choose.randrange(len(run))
        if (struct.unpack_from(">I", run[chosen], 4)[0] & 0xFFFF) in _PATCHED:
            return None
        low = sum(map(len, run[:chosen])) + at
        if field == "submit_ts":
            # The highest bit is a mark of its own that no checksum covers.
            place = choose.randrange(1, 64)
            whole = bytearray(payload)
            whole[low + place // 8] ^= 0x80 >> place % 8
            return replaced(tree, found, bytes(whole), "record")
        return replaced(tree, found, flip(payload, choose, low, low + width), "record")

    return act


def _entry_body(tree: Tree, choose: Random) -> Damaged | None:
    found = raw_block(tree, choose)
    if found is None:
        return None
    all_of_them = entries(found[4])
    at = choose.randrange(len(all_of_them))
    if len(all_of_them[at]) <= 105:
        return None
    start = sum(map(len, all_of_them[:at]))
    return replaced(tree, found, flip(found[4], choose, start + 105, start + len(all_of_them[at])), "record")


def _entries(change: str) -> Action:
    def act(tree: Tree, choose: Random) -> Damaged | None:
        found = raw_block(tree, choose, least=3)
        if found is None:
            return None
        run = entries(found[4])
        at = choose.randrange(1, len(run) - 1)
        if change == "lost":
            del run[at]
            return replaced(tree, found, b"".join(run), "gap")
        if change == "twice":
            run.insert(at, run[at])
            return replaced(tree, found, b"".join(run), "duplicate")
        run[at], run[at + 1] = run[at + 1], run[at]
        return replaced(tree, found, b"".join(run), "order")

    return act


def _entry_stale(tree: Tree, choose: Random) -> Damaged | None:
    """Another log under the same id, sound in itself: only the running checksum tells."""
    found = raw_block(tree, choose, least=3)
    if found is None:
        return None
    run = entries(found[4])
    at = choose.randrange(len(run))
    # A sound entry of the same PG and place with another body: what an older proposal would have left.
    from mover.store.sim.entry import Entry, pack_header
    from mover.store.sim.identity import PgKey

    one = run[at]
    key = PgKey(*struct.unpack_from(">Qii", one, 8))
    log_id, _, generated, epoch = struct.unpack_from(">Qqqq", one, 24)
    submit, _, freeze = struct.unpack_from(">qqq", one, 73)
    log_type = struct.unpack_from(">I", one, 4)[0]
    body = choose.randbytes(40)
    stale = Entry(log_id, log_type, generated, epoch, 1, epoch - 1, submit & (1 << 63) - 1, freeze, "", 0, False)
    run[at] = pack_header(key, stale, len(body), crc(body)) + body
    return replaced(tree, found, b"".join(run), "chain")


def _block_numbers(name: str, kind: str) -> Action:
    def act(tree: Tree, choose: Random) -> Damaged | None:
        found = raw_block(tree, choose)
        if found is None or (name == "clog_epoch_id" and found[1] == 0):
            return None
        at, width = fields(BLOCK_META)[name]
        value = int.from_bytes(found[3][at : at + width], "big", signed=True)
        wrong = {"accum_checksum": value ^ 1, "clog_epoch_id": 5, "max_log_id": value + 1}[name]
        return replaced(tree, found, found[4], kind, **{name: wrong})

    return act


def _block_lost(tree: Tree, choose: Random) -> Damaged | None:
    path = choose.choice(matching(tree, DATA, least=105))
    data = tree.files[path]
    places = blocks(data)
    if len(places) < 3:
        return None
    gone = choose.randrange(1, len(places) - 1)
    out = b""
    for number, (at, length) in enumerate(places):
        if number != gone:
            out += sealed(data[at : at + 104], data[at + 104 : at + length - 4], len(out))
    return changed(tree, path, out, "gap")


def _block_twice(tree: Tree, choose: Random) -> Damaged | None:
    path = choose.choice(matching(tree, DATA, least=105))
    data = tree.files[path]
    at, length = (blocks(data) or [(0, 0)])[-1]
    if length == 0:
        return None
    again = sealed(data[at : at + 104], data[at + 104 : at + length - 4], len(data))
    return changed(tree, path, data + again, "duplicate")


def _torn(closed: bool) -> Action:
    def act(tree: Tree, choose: Random) -> Damaged | None:
        paths = [path for path in matching(tree, DATA, least=105) if _recorded(tree, path) == closed]
        if not paths:
            return None
        path = choose.choice(paths)
        data = tree.files[path]
        places = blocks(data)
        if not places or (not closed and len(places) < 2):
            return None
        start, size = places[-1]
        cut = start + choose.choice(
            [choose.randrange(1, 104), choose.randrange(104, size - 3), size - choose.randint(1, 4)]
        )
        return changed(tree, path, data[:cut], "truncated" if closed else "torn")

    return act


def _recorded(tree: Tree, path: str) -> bool:
    """Has the data file an index record?"""
    index = tree.files.get(path.rsplit("/", 1)[0].replace("/data/", "/index/") + "/1", b"")
    ids = [struct.unpack_from(">Q", index, at + 8)[0] for at in range(0, len(index), 144)]
    return int(path.rsplit("/", 1)[1]) in ids


def _data_missing(tree: Tree, choose: Random) -> Damaged | None:
    paths = [path for path in matching(tree, DATA, least=105) if _recorded(tree, path)]
    return changed(tree, choose.choice(paths), None, "missing") if paths else None


def _data_swapped(tree: Tree, choose: Random) -> Damaged | None:
    one, other = choose.sample(matching(tree, DATA, least=105), 2)
    copy = tree.copy()
    copy.files[one], copy.files[other] = tree.files[other], tree.files[one]
    return Damaged(
        copy, "", [Finding(path, kind) for path in (one, other) for kind in ("reference", "gap", "order", "chain")]
    )


def _garbage_behind(tree: Tree, choose: Random) -> Damaged | None:
    paths = [path for path in matching(tree, DATA, least=105) if not _recorded(tree, path)]
    if not paths:
        return None
    path = choose.choice(paths)
    return changed(tree, path, tree.files[path] + choose.randbytes(200), "torn", silent=True)


def _index_field(field: str) -> Action:
    at, width = fields(INDEX_RECORD)[field]

    def act(tree: Tree, choose: Random) -> Damaged | None:
        path = choose.choice(matching(tree, INDEX))
        start = 144 * choose.randrange(len(tree.files[path]) // 144)
        return changed(tree, path, flip(tree.files[path], choose, start + at, start + at + width), "record")

    return act


def _index_wrong(name: str) -> Action:
    """A record that is sound and tells something else than its data file has."""

    def act(tree: Tree, choose: Random) -> Damaged | None:
        path = choose.choice(matching(tree, INDEX))
        data = tree.files[path]
        start = 144 * choose.randrange(len(data) // 144)
        values = list(struct.unpack_from(">hhhh16qq", data, start))
        if not values[3]:
            return None
        values[list(fields(INDEX_RECORD)).index(name)] += 1
        record = index_record(tuple(values[4:20]))
        return changed(tree, path, data[:start] + record + data[start + 144 :], "reference")

    return act


def _open(tree: Tree) -> set[str]:
    """Directories of pieces (or rounds) that are still written to."""
    newest = {(one["tenant_id"], one["round"]): one for one in tree.truth["rounds"]}
    return {one["directory"] for one in newest.values() if one["status"] == "doing"}


def _index_records(change: str) -> Action:
    def act(tree: Tree, choose: Random) -> Damaged | None:
        path = choose.choice(matching(tree, INDEX))
        data = tree.files[path]
        records = [data[at : at + 144] for at in range(0, len(data), 144)]
        if change == "missing":
            return changed(tree, path, None, "missing") if len(records) > 1 else None
        if change == "truncated":
            # Where the archive goes on, a record may be half written: to say so and to pass over it are both right.
            going_on = path.rsplit("/index/", 1)[0] in _open(tree)
            return changed(tree, path, data[: -choose.randrange(1, 144)], "truncated", silent=going_on)
        if len(records) < 3:
            return None
        at = choose.randrange(len(records) - 2)
        if change == "lost":
            del records[at]
        elif change == "twice":
            records.insert(at, records[at])
        else:
            records[at], records[at + 1] = records[at + 1], records[at]
        return changed(tree, path, b"".join(records), {"lost": "gap", "twice": "duplicate"}.get(change, "order"))

    return act


def _small(pattern: str, layout: str, field: str) -> Action:
    at, width = fields(layout)[field]

    def act(tree: Tree, choose: Random) -> Damaged | None:
        paths = matching(tree, pattern, least=1)
        if not paths:
            return None
        path = choose.choice(paths)
        return changed(tree, path, flip(tree.files[path], choose, at, at + width), "record")

    return act


def _small_truncated(pattern: str) -> Action:
    def act(tree: Tree, choose: Random) -> Damaged | None:
        paths = matching(tree, pattern, least=2)
        if not paths:
            return None
        path = choose.choice(paths)
        return changed(tree, path, tree.files[path][: choose.randrange(1, len(tree.files[path]))], "truncated")

    return act


def _key_of_another(tree: Tree, choose: Random) -> Damaged | None:
    """A key file that is sound and claims another number of index files in the piece before."""
    paths = [path for path in matching(tree, KEY, least=168) if tree.files[path][8:16] != bytes(8)]
    if not paths:
        return None
    path = choose.choice(paths)
    data = tree.files[path]
    return changed(tree, path, archive_key(data[16:160], first_piece=False, max_index_file=9), "reference")


LOG_ACTIONS: dict[str, Action] = {
    **{f"archive_data.block.{field}": _block_field(field) for field in fields(BLOCK_META)},
    "archive_data.payload": _block_payload,
    "archive_data.start_offset": _block_offset,
    **{f"archive_data.entry.{field}": _entry_field(field) for field in fields(ENTRY)},
    "archive_data.entry.body": _entry_body,
    "archive_data.entry.lost": _entries("lost"),
    "archive_data.entry.twice": _entries("twice"),
    "archive_data.entry.order": _entries("order"),
    "archive_data.entry.stale_proposal": _entry_stale,
    "archive_data.block.wrong_chain": _block_numbers("accum_checksum", "chain"),
    "archive_data.block.wrong_epoch": _block_numbers("clog_epoch_id", "epoch"),
    "archive_data.block.wrong_max_log_id": _block_numbers("max_log_id", "reference"),
    "archive_data.block.lost": _block_lost,
    "archive_data.block.twice": _block_twice,
    "archive_data.torn_tail": _torn(False),
    "archive_data.truncated": _torn(True),
    "archive_data.garbage_behind": _garbage_behind,
    "archive_data.missing": _data_missing,
    "archive_data.swapped": _data_swapped,
    **{f"archive_index.{field}": _index_field(field) for field in fields(INDEX_RECORD)},
    **{f"archive_index.wrong_{name}": _index_wrong(name) for name in ("max_log_id", "accum_checksum", "clog_epoch_id")},
    **{f"archive_index.record_{change}": _index_records(change) for change in ("lost", "twice", "order")},
    "archive_index.missing": _index_records("missing"),
    "archive_index.truncated": _index_records("truncated"),
    **{f"archive_key.{field}": _small(KEY, ARCHIVE_KEY, field) for field in fields(ARCHIVE_KEY)},
    "archive_key.truncated": _small_truncated(KEY),
    "archive_key.wrong_max_index_file": _key_of_another,
    **{f"clog_info.{field}": _small(CLOG_INFO, START_TS, field) for field in fields(START_TS)},
    "clog_info.truncated": _small_truncated(CLOG_INFO),
}
