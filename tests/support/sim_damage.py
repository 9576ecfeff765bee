"""Damages a synthetic cluster's log files in one place, in place.

``damage(site, kind, seed)`` gives the files that are damaged. What holds afterwards is for the test to say: whoever
reads the log must end with an error or go on with another replica, and must never take other bytes for the log.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from sim_reader import clog_items, read_ilog

from mover.store.sim.packing import crc, dice

PAGE = 4096
CLOG_KINDS = (
    "entry.header",
    "entry.body",
    "entry.log_id",
    "block.meta",
    "block.total_len",
    "compressed.header",
    "compressed.data",
    "info.body",
    "trailer.start_pos",
    "trailer.file_id",
    "file.missing",
    "file.truncated",
    "file.zeros_in_the_middle",
    "file.swapped_with_another_servers",
)
ILOG_KINDS = (
    "ilog.cursor",
    "ilog.info",
    "ilog.trailer",
    "ilog.truncated",
    "ilog.missing",
    "ilog.wrong_offset",
    "ilog.wrong_accum",
)
KINDS = CLOG_KINDS + ILOG_KINDS


def using(site: Path, server: int) -> int:
    """The oldest clog file that the server's log is in."""
    table = json.loads((site / "catalog.json").read_text())["tables"]["__all_virtual_server_clog_stat"]
    names = [name for name, _ in table["columns"]]
    rows = [dict(zip(names, row, strict=True)) for row in table["rows"]]
    return next(row["user_clog_min_using_file_id"] for row in rows if row["svr_ip"] == f"10.0.0.{server}")


def clogs(site: Path, server: int) -> list[Path]:
    first = using(site, server)
    paths = (site / f"observer_{server}/store/clog").iterdir()
    return sorted((path for path in paths if int(path.name) >= first), key=lambda path: int(path.name))


def patch(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def flip(path: Path, low: int, high: int, choose) -> Path:
    at = choose.randrange(low, high)
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << choose.randrange(8)]))
    return path


def damage(site: Path, kind: str, seed: int) -> list[Path]:
    """Damage a file of one of the servers, or two that are swapped; [] when there is nothing to be damaged so."""
    choose = dice("sim damage", kind, seed)
    servers = sorted(int(path.name.rsplit("_", 1)[1]) for path in site.glob("observer_*"))
    choose.shuffle(servers)
    for server in servers:
        found = _ilog(site, server, kind, choose) if kind in ILOG_KINDS else _clog(site, server, kind, choose)
        if found is not None:
            others = site.glob(f"observer_*/store/clog/{found.name}") if kind.startswith("file.swapped") else ()
            return [found, *(path for path in others if path != found)]
    return []


def _clog(site: Path, server: int, kind: str, choose) -> Path | None:
    paths = clogs(site, server)
    path = choose.choice(paths)
    noun, what = kind.split(".")
    if noun == "file":
        return _file(site, server, path, what, choose)
    items = list(clog_items(path))
    finished = [one for one in paths if [*clog_items(one)][-1][0] == "info"]
    if noun in ("info", "trailer"):
        if not finished:
            return None
        path = choose.choice(finished)
        if noun == "info":
            _, at, size, _ = [*clog_items(path)][-1]
            return flip(path, at + 48, at + size, choose)
        place = (1 << 26) - 512 + 48 + (2 if what == "start_pos" else 6)
        return flip(path, place, place + 4, choose)
    raw = path.read_bytes()[: items[-1][1]]
    entries = [(at, size) for name, at, size, _ in items if name == "entry"]
    plain = [(at, size) for at, size in entries if raw[at : at + 2] == b"ER"]
    packed = [(at, size) for at, size in entries if raw[at : at + 1] == b"C"]
    if noun == "compressed":
        if not packed:
            return None
        at, size = choose.choice(packed)
        return flip(path, at, at + 10, choose) if what == "header" else flip(path, at + 10, at + size, choose)
    if noun == "block":
        starts = [at - 48 for at, _ in entries if raw[at - 48 : at - 46] == b"LB"]
        start = choose.choice(starts)
        return (
            flip(path, start + 8, start + 16, choose) if what == "total_len" else flip(path, start, start + 48, choose)
        )
    at, size = choose.choice([one for one in plain if one[1] > 140])
    low, high = {"header": (0, 105), "body": (105, size), "log_id": (24, 32)}[what]
    return flip(path, at + low, at + high, choose)


def _file(site: Path, server: int, path: Path, what: str, choose) -> Path | None:
    if what == "missing":
        path.unlink()
    elif what == "truncated":
        with path.open("r+b") as file:
            file.truncate(choose.randrange(1, 4) * PAGE)
    elif what == "zeros_in_the_middle":
        end = [*clog_items(path)][-1][1]
        if end < 4 * PAGE:
            return None
        patch(path, choose.randrange(1, end // PAGE - 1) * PAGE, bytes(PAGE))
    else:
        other = next(
            (one for one in site.glob("observer_*/store/clog/*") if one.name == path.name and one != path), None
        )
        if other is None:
            return None
        swap = path.with_suffix(".swap")
        path.rename(swap)
        other.rename(path)
        swap.rename(other)
    return path


def _ilog(site: Path, server: int, kind: str, choose) -> Path | None:
    paths = sorted((site / f"observer_{server}/store/ilog").iterdir())
    if not paths:
        return None
    path = choose.choice(paths)
    data = path.read_bytes()
    fields = list(struct.unpack_from(">hhiiiiiqq", data, len(data) - 512))
    info, info_size, members, members_size = fields[3:7]
    what = kind.split(".")[1]
    if what == "missing":
        path.unlink()
        return path
    if what == "truncated":
        path.write_bytes(data[: choose.randrange(len(data))])
        return path
    if what in ("cursor", "info", "trailer"):
        count = sum(map(len, read_ilog(path).values()))
        bounds = {
            "cursor": (0, 32 * count),
            "info": (info, info + info_size),
            "trailer": (len(data) - 512, len(data) - 472),
        }
        return flip(path, *bounds[what], choose)
    # Sound sums around a cursor that points elsewhere, or has another running checksum.
    count = sum(map(len, read_ilog(path).values()))
    at = 32 * choose.randrange(count)
    changed = bytearray(data)
    place = at + (4 if what == "wrong_offset" else 16)
    value = (
        int.from_bytes(changed[place : place + 4], "big") + 8 if what == "wrong_offset" else choose.randrange(1 << 31)
    )
    changed[place : place + 4] = value.to_bytes(4, "big")
    fields[7] = crc(bytes(changed[: members + members_size]))
    fields[8] = crc(struct.pack("<hhiiiiiq", *fields[:8]))
    struct.pack_into(">hhiiiiiqq", changed, len(data) - 512, *fields)
    path.write_bytes(changed)
    return path
