"""What an errno of a destination means to the person who runs the backup."""

from __future__ import annotations

import errno
import os

from mover.errors import (
    OB_MOUNT_FILE_NOT_VALID,
    MountError,
    TargetError,
    TargetExists,
    TargetNotFound,
    UnreachableError,
)

OB_IO_ERROR = -4009

_FULL = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is larger than the file system or the process limit allows",
}
_REFUSED = {
    errno.EACCES: (
        "permission denied",
        "run as the user that owns the directory, or give that user write access (mode 0700)",
    ),
    errno.EPERM: (
        "the operation is not permitted",
        "look for an immutable flag, a squashed NFS export or a mandatory access policy",
    ),
    errno.EROFS: ("the file system is read-only", "remount it read-write; a disk error may have made it read-only"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "use a shorter destination directory"),
    errno.ELOOP: ("it is a symbolic link", "links inside a destination are not followed; put the file itself there"),
    errno.ENOTDIR: ("a file is in the place of a directory", "look at the destination: something else writes there"),
    errno.EISDIR: ("a directory is in the place of a file", "look at the destination: something else writes there"),
    errno.EMFILE: ("too many open files", "raise the open file limit (ulimit -n)"),
    errno.ENFILE: ("the machine has too many open files", "raise fs.file-max"),
}
_BROKEN = {
    errno.EIO: "the device or its server reports an i/o error",
    errno.EUCLEAN: "the file system is damaged",
    errno.EBADMSG: "a checksum of the file system is wrong",
    errno.ENOMEDIUM: "the device has no medium",
}
_SIGN_IN = {errno.EKEYEXPIRED, errno.EKEYREVOKED, errno.EKEYREJECTED, errno.ENOKEY}
_SILENT = {
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ECONNREFUSED,
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
    errno.ENODEV,
    errno.ENXIO,
    errno.EREMOTEIO,
}


def target_error(error: OSError, doing: str, path: str, root: str) -> TargetError | UnreachableError:
    """The typed error for ``error``, met while ``doing`` ("write", "read" ...) ``path`` below ``root``."""
    place = f"{doing} {path!r} at {root}" if path else f"{doing} {root}"
    code = error.errno or 0
    if code == errno.ENOENT:
        return TargetNotFound(f"can not {place}: no such file", path=path)
    if code == errno.EEXIST:
        return TargetExists(f"can not {place}: the name is taken", path=path)
    if code in _FULL:
        hint = "free space or raise the limit at the destination; nothing was published under this name"
        return TargetError(f"can not {place}: {_FULL[code]}", hint=hint, code=OB_IO_ERROR, path=path)
    if code == errno.ESTALE:
        hint = "the server no longer knows this directory: mount it again, then run the command again"
        message = f"can not {place}: the file handle is stale"
        return MountError(message, hint=hint, code=OB_MOUNT_FILE_NOT_VALID, path=path)
    if code in _SILENT:
        hint = "the file system's server does not answer; check the mount and the network"
        return UnreachableError(f"can not {place}: {_words(code)}", hint=hint, path=path)
    if code in _REFUSED:
        words, hint = _REFUSED[code]
        return TargetError(f"can not {place}: {words}", hint=hint, path=path)
    if code in _SIGN_IN:
        hint = "the ticket or key of this mount is no longer valid: renew it (kinit), then run the command again"
        return UnreachableError(f"can not {place}: {_words(code)}", hint=hint, path=path)
    hint = "the device or its server reported a failure; look at its log before trusting it again"
    words = f"{_BROKEN[code]} ({errno.errorcode[code]})" if code in _BROKEN else _words(code)
    return TargetError(f"can not {place}: {words}", hint=hint, code=OB_IO_ERROR, path=path)


def _words(code: int) -> str:
    text = os.strerror(code)
    return f"{text[:1].lower()}{text[1:]} ({errno.errorcode.get(code, code)})"
