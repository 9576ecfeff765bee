"""What this host keeps of a destination: files below the state directory, named after the place."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mover.config import Settings
from mover.errors import ConfigError
from mover.target.pacing import SharedPace
from mover.target.url import FileDestination, parse_url


def state_file(settings: Settings, kind: str, *more: object) -> Path:
    """The file of a kind that belongs to the destination; the directory is made (mode 0700).

    Args:
        more: what else it belongs to.

    Raises ConfigError when there is no destination, or the directory cannot be made.
    """
    if settings.dest is None:
        raise ConfigError("no destination was given", hint="name it with --dest file:///dir or s3://bucket/prefix")
    try:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"the state directory {settings.state_dir} cannot be made: {(exc.strerror or 'i/o error').lower()}",
            hint="name another one with --state-dir",
        ) from None
    name = hashlib.sha256("|".join(map(str, (_place(settings.dest), *more))).encode()).hexdigest()[:16]
    return settings.state_dir / f"{kind}-{name}"


def catalog_url(settings: Settings) -> str:
    """The catalog that was named, or the SQLite file of the destination and cluster. Raises ConfigError."""
    if settings.catalog is not None:
        return settings.catalog
    return f"sqlite+aiosqlite:///{state_file(settings, 'catalog', settings.cluster_name, settings.cluster_id)}.db"


def pace_file(settings: Settings) -> Path:
    """Where the processes of this host meet that use the destination. Raises ConfigError."""
    return state_file(settings, "pace")


def join_pace(settings: Settings) -> SharedPace:
    """The limits that they share, after setting those of ``settings``. Raises ConfigError. Close it."""
    return SharedPace(pace_file(settings), settings.rate_limit, settings.request_limit)


def _place(dest: str) -> str:
    """Which place a destination URL names, however it is spelled: two spellings must not make two catalogs."""
    destination = parse_url(dest)
    if isinstance(destination, FileDestination):
        return destination.url
    return f"{destination.endpoint}|{destination.bucket}/{destination.prefix}"
