"""Paths inside a destination: what is allowed, and which names belong to unfinished writes.

A whole-file write on ``file://`` goes to ``<name>.tmp.<epoch us>`` first, as OceanBase does it, here with a random
suffix so that two writers of one name never share a temporary file.
"""

from __future__ import annotations

import os
import re
import time

from mover.errors import TargetError

_TEMPORARY = re.compile(r"\.tmp\.[0-9]+(\.[0-9a-z]+)?$")
_DELETED = re.compile(r"\.nfs[0-9a-f]{24}|\.fuse_hidden[0-9a-f]{16}")
_MAX_NAME = 255 - len(".tmp.1700000000000000.0123456789ab")


def check_path(path: str) -> str:
    """Return ``path`` when it may name a file at a destination.

    Relative, components separated by one '/', none of them empty, '.' or '..', no control characters, UTF-8, and not
    the name of a temporary file. Raises TargetError otherwise: such a path is a caller's mistake or a hostile listing,
    and must not reach a file system.
    """
    reason = _reason(path)
    if reason:
        raise TargetError(f"path {path!r} can not be used at a destination: {reason}", path=path)
    return path


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` when it may select files: like a path, but it may be empty or end anywhere, also after '/'."""
    parts = prefix.split("/")
    if any(part in ("", ".", "..") for part in parts[:-1]) or parts[-1] in (".", "..") or "\0" in prefix:
        raise TargetError(f"prefix {prefix!r} can not be listed: it is not a relative path", path=prefix)
    return prefix


def is_temporary(name: str) -> bool:
    """Whether a path or file name belongs to a write that was not finished."""
    return _TEMPORARY.search(name) is not None


def is_deleted(name: str) -> bool:
    """Whether a file name is what NFS or FUSE calls a file that was deleted while somebody has it open.

    It goes when that one closes it. To delete it is not only useless: the client gives it another such name.
    """
    return _DELETED.fullmatch(name) is not None


def temporary_name(name: str) -> str:
    """A new name for the unfinished content of ``name``, in the same directory."""
    return f"{name}.tmp.{time.time_ns() // 1000}.{os.urandom(6).hex()}"


def finished_name(temporary: str) -> str:
    """What a temporary file was to be called."""
    return _TEMPORARY.sub("", temporary)


def _reason(path: str) -> str | None:
    if not path:
        return "it is empty"
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in path):
        return "it contains control characters"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "it is not valid unicode"
    if len(encoded) > 1024 - 64:
        return "it is too long"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return "it must be relative, without empty, '.' or '..' components"
        if len(part.encode()) > _MAX_NAME:
            return f"a name in it is longer than {_MAX_NAME} bytes"
    return "that is a temporary file's name" if is_temporary(path) else None
