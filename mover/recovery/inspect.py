"""Inspect: decode one media file, or every file below a place, wherever it is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiofiles

from mover.config import Settings
from mover.encryption.cipher import NO_KEYS, Keys
from mover.encryption.given import key_sources
from mover.encryption.sources import KeySource
from mover.errors import EncryptionKeyError, FormatError, IntegrityError, TargetNotFound
from mover.media.inspect import describe
from mover.media.inspect import records as decode_records
from mover.media.layout import SYS_TENANT_ID, FileKind, Layout, parse_path
from mover.recovery.foreign_tree import scan_tree, summarize
from mover.repository.keys import load_keys
from mover.repository.pieces import PIECE, pieces
from mover.repository.tree import Repository
from mover.target.base import ObjectInfo, Target
from mover.target.paths import is_deleted
from mover.target.url import open_target

SMALL = 16 << 20
_BATCH = 256


async def inspect_path(settings: Settings, path: str, *, records: bool) -> AsyncIterator[dict[str, Any]]:
    """Yield one dictionary per file, or with ``records`` one per record.

    Args:
        path: a local path, a destination URL, or a path below ``settings.dest``.

    A damaged file yields what it has and then an ``error``; nothing is raised for it. Raises TargetNotFound when there
    is nothing at ``path``, EncryptionKeyError when the key that the settings give is another one.
    """
    keys = _Keys(key_sources(settings))
    target, below = await _open(settings, path)
    if target is None:
        async for entry in _local(Path(path), records, keys):
            yield entry
        return
    try:
        async for entry in _remote(target, below, records, keys):
            yield entry
    finally:
        await target.aclose()


class _Keys:
    """The keys of each tree that files are in, as far as ``sources`` open them."""

    def __init__(self, sources: tuple[KeySource, ...]) -> None:
        self._sources = sources
        self._found: dict[str, Keys] = {}

    async def of(self, path: str, target: Target | None = None) -> Keys:
        """For a file of ``target``, or of this machine."""
        parsed = parse_path(path) if self._sources else None
        if parsed is None or parsed.cluster_name is None or parsed.cluster_id is None:
            return NO_KEYS
        layout = Layout(parsed.cluster_name, parsed.cluster_id)
        tree = f"{parsed.root}{layout.incarnation_dir}"
        if tree not in self._found:
            place = target or await open_target(Path(parsed.root or "/").as_uri(), create=False)
            try:
                self._found[tree] = await load_keys(Repository(place, layout, SYS_TENANT_ID), self._sources)
            finally:
                if target is None:
                    await place.aclose()
        found = self._found[tree]
        if found.refusal is not None and not isinstance(found.refusal, EncryptionKeyError):
            raise found.refusal
        return found


async def inspect_tree(settings: Settings, path: str) -> dict[str, Any]:
    """Clusters, tenants, sets, rounds, pieces and PGs below a place, by the names of its files; nothing else is read.

    Args: as of :func:`inspect_path`. Raises TargetNotFound when there is nothing at ``path``.
    """
    target, below = await _open(settings, path)
    if target is None:
        files = [_info(found) for found in _files(Path(path))]
        return summarize(scan_tree(files))
    try:
        single = await target.stat(below) if below else None
        prefix = below + "/" if below else ""
        listed = [single] if single else [info async for info in target.list(prefix)]
        if not listed:
            raise _nothing(f"{target.url}/{below}")
        return summarize(scan_tree(listed))
    finally:
        await target.aclose()


def _info(path: Path) -> ObjectInfo:
    found = path.stat()
    return ObjectInfo(str(path.absolute()), found.st_size, found.st_mtime_ns // 1000)


async def _open(settings: Settings, path: str) -> tuple[Target | None, str]:
    """The destination that ``path`` is at or below, and the path below it; None for a local path."""
    if "://" in path:
        return await open_target(path, create=False, file_timeout=settings.file_timeout), ""
    if settings.dest is not None and not os.path.exists(path):
        target = await open_target(settings.dest, create=False, file_timeout=settings.file_timeout)
        return target, path.strip("/")
    return None, ""


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(found for found in path.rglob("*") if found.is_file() and not is_deleted(found.name))
    if path.is_file():
        return [path]
    raise TargetNotFound(f"{path}: no such file or directory", hint="name a file of a backup tree, or a directory")


def _nothing(where: str) -> TargetNotFound:
    return TargetNotFound(f"{where}: nothing there", hint="name a file of a backup tree, or a directory")


async def _local(path: Path, records: bool, keys: _Keys) -> AsyncIterator[dict[str, Any]]:
    for found in _files(path):
        name = str(found.absolute())
        if _is_temporary(name):
            continue
        if found.stat().st_size <= SMALL:
            async with aiofiles.open(found, "rb") as file:
                content = iter([await file.read()])
        else:
            content = _local_pieces(found)
        async for entry in _decode(name, content, records, await keys.of(name)):
            yield entry


def _local_pieces(path: Path) -> Iterator[bytes]:
    """A large file, read in the thread that decodes it."""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


async def _remote(target: Target, below: str, records: bool, keys: _Keys) -> AsyncIterator[dict[str, Any]]:
    single = await target.stat(below) if below else None
    files = [single] if single else [info async for info in target.list(below + "/" if below else "")]
    loop = asyncio.get_running_loop()
    for info in files:
        if not _is_temporary(info.path):
            found = await keys.of(info.path, target)
            async for entry in _decode(info.path, pieces(target, info.path, info.size, loop), records, found):
                yield entry
    if not files:
        raise _nothing(f"{target.url}/{below}")


def _is_temporary(path: str) -> bool:
    parsed = parse_path(path)
    return parsed is not None and parsed.kind is FileKind.TEMPORARY


async def _decode(path: str, content: Iterator[bytes], records: bool, keys: Keys) -> AsyncIterator[dict[str, Any]]:
    """In batches through a thread: decoding a gigabyte must not stop the event loop."""
    if not records:
        try:
            yield await asyncio.to_thread(describe, path, content, keys=keys)
        except FormatError as exc:
            yield {"path": path, "kind": "unknown", "ok": False, "error": exc.as_json()}
        return
    try:
        rows = await asyncio.to_thread(decode_records, path, content, keys=keys)
        while batch := await asyncio.to_thread(_take, rows):
            for row in batch:
                if isinstance(row, IntegrityError):
                    yield {"path": path, "record": "error", "error": row.as_json()}
                else:
                    yield {"path": path, **row}
    except FormatError as exc:
        yield {"path": path, "record": "error", "error": exc.as_json()}


def _take(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any] | IntegrityError]:
    batch: list[dict[str, Any] | IntegrityError] = []
    try:
        for row in rows:
            batch.append(row)
            if len(batch) == _BATCH:
                break
    except IntegrityError as exc:
        batch.append(exc)
    return batch
