"""Every error mover raises on purpose.

::

    MoverError                    1  something failed
    ├── ConfigError               2  a flag, a file or a URL that cannot be used as given
    ├── PreconditionError         4  refused: nothing was done
    │   └── EncryptionKeyError    4  the key that encrypted bytes need is not at hand, or is another one
    ├── IntegrityError            5  bytes that are not what they must be
    │   └── FormatError           5  bytes that do not even decode
    ├── LogGapError               5  log that is missing from a range that must be whole
    ├── Cancelled                 6  stopped because somebody asked for it
    ├── UnreachableError          7  the source or the destination did not answer
    ├── SourceError               1  the store being backed up refused or misbehaved
    ├── TargetError               1  the destination refused or misbehaved
    │   ├── TargetNotFound        1  no such object
    │   ├── TargetLocked          1  the destination keeps the object until a date
    │   ├── TargetExists          1  the object is already there and must not be replaced
    │   └── MountError            7  the destination directory is not the one it was (OceanBase -9051)
    └── StateError                1  the coordinator's own state does not allow it (lost lease, fenced)

The number is the exit status of the command line. ``code`` is OceanBase's own error number where it has one.
Messages are lower case, name tenant, PG, file and offset where there are any, and never contain a secret;
``hint`` is one sentence that says what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

# OceanBase's own numbers (ob_errno.def, 3.1).
OB_ENTRY_NOT_EXIST = -4018
OB_LOG_ARCHIVE_INTERRUPTED = -9027
OB_LOG_ARCHIVE_NOT_RUNNING = -9029
OB_BACKUP_INFO_NOT_EXIST = -9032
OB_ARCHIVE_ALREADY_STOPPED = -9034
OB_START_LOG_ARCHIVE_FAILED = -9023
OB_BACKUP_DEST_INVALID = -9026
OB_BACKUP_IN_PROGRESS = -9036
OB_BACKUP_CAN_NOT_START = -9040
OB_INVALID_BACKUP_SET_ID = -9046
OB_MOUNT_FILE_NOT_VALID = -9051


class MoverError(Exception):
    """Base of all errors: a message, a hint, OceanBase's number and the place it happened.

    Args:
        message: what went wrong and where, lower case, without secrets.
        hint: what to do next, one sentence.
        code: OceanBase's error number, negative, or None.
        where: structured place: ``path``, ``offset``, ``tenant_id``, ``pg``, ``lsn`` ... as JSON-able values.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, code: int | None = None, **where: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.where = {key: value for key, value in where.items() if value is not None}

    @property
    def kind(self) -> str:
        """The name other programs match on: the class name."""
        return type(self).__name__

    def as_json(self) -> dict[str, Any]:
        """The ``error`` object of ``--json``: kind, code, message, hint, and the place."""
        return {"kind": self.kind, "code": self.code, "message": self.message, "hint": self.hint, **self.where}


class ConfigError(MoverError):
    """A flag, a configuration file or a URL cannot be used as given."""

    exit_code = 2


class PreconditionError(MoverError):
    """The request was refused before anything was done."""

    exit_code = 4


class EncryptionKeyError(PreconditionError):
    """Encrypted bytes need a key that was not given or does not fit; ``key_id`` in ``where`` names it when known."""


class IntegrityError(MoverError):
    """Bytes are not what a checksum, a digest or a chain says they must be."""

    exit_code = 5


class FormatError(IntegrityError):
    """Bytes at the destination or in the store do not decode."""


class LogGapError(MoverError):
    """Log is missing: ``from_lsn`` (inclusive) to ``until_lsn`` (exclusive) in ``where``."""

    exit_code = 5


class Cancelled(MoverError):
    """The job was cancelled; what was published before stays valid."""

    exit_code = 6


class UnreachableError(MoverError):
    """The source or the destination does not answer, or the sign-in was refused."""

    exit_code = 7


class SourceError(MoverError):
    """The store that is being backed up refused a request or contradicts itself."""


class TargetError(MoverError):
    """The destination refused a request, or keeps failing after retries."""


class TargetNotFound(TargetError):
    """The object or file does not exist at the destination."""


class TargetExists(TargetError):
    """A name that must be new is taken at the destination."""


class TargetLocked(TargetError):
    """The destination keeps objects until a date (object lock): ``locked`` has each path with its date, UTC.

    ``where`` has ``path`` of one and ``until``, the latest date. Whatever else was to be removed is gone.
    """

    def __init__(self, message: str, *, locked: Mapping[str, datetime], hint: str | None = None) -> None:
        until = max(locked.values())
        super().__init__(message, hint=hint, path=next(iter(locked)), until=until.isoformat())
        self.locked = dict(locked)


class MountError(TargetError):
    """The destination directory is not the mount that the run began on."""

    exit_code = 7


class StateError(MoverError):
    """The coordinator lost its lease, was fenced by a newer one, or met a transition that is not allowed."""
