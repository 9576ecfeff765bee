"""Settings: one table of options that drives flags, ``MOVER_*`` variables, the TOML file, defaults and the help.

The table is the :class:`Settings` class itself: a row is a field, and ``OPTIONS`` lists the rows. Precedence: flag,
then environment, then file, then default; :meth:`Settings.origins` says which one it was.
"""
# ruff: noqa: RUF009 - row() makes a dataclass field, which the rule cannot see

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mover import config_values as values
from mover.config_option import Option, Origin, row
from mover.config_secret import MASK, redact_url, url_secrets
from mover.errors import ConfigError

DEFAULT_FILE = Path("/etc/mover/mover.toml")
FILE_VARIABLE = "MOVER_CONFIG"
# Variables with our prefix that are read by others: the file itself, the kernels and the build.
_FOREIGN_VARIABLES = frozenset({FILE_VARIABLE, "MOVER_PURE", "MOVER_DEBUG"})


_DEFAULT = Origin("default")


def _state_dir(env: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/mover")
    return Path(env.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "mover"


def _processors(_env: Mapping[str, str]) -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """Everything that can be set, with its type. Made by :func:`load`; frozen; its repr holds no secret."""

    source: str | None = row(
        values.url,
        None,
        "URL",
        "What is backed up: seekdb:///base/dir, or oceanbase://user@host:2881/?data_dir=... (3.1).",
        show=redact_url,
    )
    dest: str | None = row(
        values.url, None, "URL", "Where backups live: file:///dir or s3://bucket/prefix?endpoint=URL.", show=redact_url
    )
    catalog: str | None = row(
        values.url,
        None,
        "URL",
        "Catalog database as an SQLAlchemy URL; without it an SQLite file below the state directory.",
        show=redact_url,
    )
    state_dir: Path = row(values.path, _state_dir, "DIR", "Where mover keeps its own state: catalogs and log holds.")
    cluster_name: str = row(
        values.cluster_name,
        "seekdb",
        "NAME",
        "Cluster name: the first directory at the destination.",
        toml="cluster.name",
    )
    cluster_id: int = row(
        values.integer(1, 4294901759), 1, "N", "Cluster id: the second directory at the destination.", toml="cluster.id"
    )
    compression: str = row(
        values.compression,
        "auto",
        "KIND",
        "none (OceanBase reads the set), lz4, zstd:<level>, auto or auto:<min>..<max>: store as is unless it pays.",
    )
    memory: int = row(
        values.size(32 << 20),
        256 << 20,
        "SIZE",
        "Ceiling of the buffers that hold blocks and parts on their way.",
        show=values.format_size,
    )
    concurrency: int | None = row(
        values.automatic(values.integer(1, 1024)),
        None,
        "N",
        "Uploads or downloads in flight; auto: what pays is found by trying.",
        show=values.format_automatic,
    )
    part_size: int = row(
        values.size(5 << 20, 5 << 30),
        8 << 20,
        "SIZE",
        "Size of the parts that a large file is uploaded in.",
        show=values.format_size,
    )
    workers: int = row(
        values.integer(1, 1024), _processors, "N", "Threads that verify, digest and compress; one per processor."
    )
    processes: int | None = row(
        values.automatic(values.integer(1, 256)),
        1,
        "N",
        "Processes that compress and send a backup's blocks; auto: one for every eight workers.",
        show=values.format_automatic,
    )
    file_timeout: float = row(
        values.duration(1, 86400),
        300.0,
        "TIME",
        "How long one call into the file system of a file:// destination may take before it counts as hung.",
        show=values.format_duration,
    )
    rate_limit: int | None = row(
        values.rate(values.size(64 << 10)),
        None,
        "SIZE/s",
        "Bytes a second to and from the destination, for all of this host's processes together.",
        show=values.format_rate(values.format_size),
    )
    request_limit: int | None = row(
        values.rate(values.integer(1, 1_000_000)),
        None,
        "N/s",
        "Requests a second, likewise; archiving goes first.",
        show=values.format_rate(str),
    )
    retry_for: float = row(
        values.duration(1, 86400),
        120.0,
        "TIME",
        "How long a request to an object store is repeated while it fails.",
        show=values.format_duration,
    )
    sse: str | None = row(values.text, None, "KIND", "Encryption at an object store: AES256 or aws:kms.")
    sse_kms_key_id: str | None = row(values.text, None, "ID", "Key of the store's KMS, for aws:kms.")
    storage_class: str | None = row(values.text, None, "NAME", "Storage class of what is written once.")
    tags: str | None = row(values.text, None, "KEY=VALUE,...", "Tags of every object.")
    object_lock: str | None = row(
        values.text, None, "MODE:DAYSd", "Lock what is written once: governance:30d or compliance:30d."
    )
    flush_interval: float = row(
        values.duration(0.01, 3600),
        0.5,
        "TIME",
        "How long the archive gathers log; up to three times that on an object store when little comes.",
        show=values.format_duration,
    )
    archive_wait: float = row(
        values.duration(0, 86400),
        60.0,
        "TIME",
        "How long a backup waits for the archive to pass its end.",
        show=values.format_duration,
    )
    lease_ttl: float = row(
        values.duration(1, 3600),
        15.0,
        "TIME",
        "How long a coordinator that fell silent keeps others out.",
        show=values.format_duration,
    )
    full_at: str | None = row(
        values.cron,
        None,
        "CRON",
        "When `mover serve` takes a full backup, such as `0 1 * * SAT`, in the local zone.",
        toml="schedule.full",
    )
    incremental_at: str | None = row(
        values.cron,
        None,
        "CRON",
        "When `mover serve` takes an incremental backup, such as `0 1 * * TUE,THU`.",
        toml="schedule.incremental",
    )
    window: str | None = row(
        values.window,
        None,
        "HH:MM-HH:MM",
        "When backups may run: one that is not done by its end stops there, and the next one goes on with it.",
        toml="schedule.window",
    )
    progress_interval: float = row(
        values.duration(0.1, 86400),
        10.0,
        "TIME",
        "Time between progress lines where there is no terminal.",
        show=values.format_duration,
    )
    scratch_dir: Path | None = row(
        values.path,
        None,
        "DIR",
        "Local disk for blocks that must be copied in a hurry; without it, the state directory.",
    )
    source_user: str = row(values.text, "root", "NAME", "User at the source.")
    source_password: str | None = row(
        values.secret, None, "TEXT", "Password at the source: never a flag, never shown.", secret=True
    )
    source_password_file: Path | None = row(values.path, None, "FILE", "File whose first line is the password.")
    encrypt: str = row(
        values.choice("none", "aes-256-gcm"),
        "none",
        "CIPHER",
        "Encrypt backups and archived log: none or aes-256-gcm; then one of the next four says with which key.",
    )
    encrypt_passphrase: str | None = row(
        values.secret, None, "TEXT", "Passphrase that wraps the data keys: never a flag, never shown.", secret=True
    )
    encrypt_passphrase_file: Path | None = row(values.path, None, "FILE", "File whose first line is the passphrase.")
    encrypt_key_file: Path | None = row(
        values.path, None, "FILE", "File of 32 bytes or 64 hexadecimal digits that wraps the data keys."
    )
    encrypt_kms: str | None = row(
        values.url,
        None,
        "URL",
        "Key service that wraps the data keys: aws-kms://KEY?region=NAME or alibaba-kms://KEY?region=NAME.",
        show=redact_url,
    )
    offline: bool = row(
        values.boolean,
        False,
        "",
        "The engine is stopped: read its files without asking it.",
        show=lambda v: str(v).lower(),
    )
    log_level: str = row(
        values.choice("debug", "info", "warning", "error"),
        "warning",
        "LEVEL",
        "debug, info, warning or error, on stderr.",
    )
    log_format: str = row(values.choice("text", "json"), "text", "FORMAT", "text, or json: one object per line.")

    _origins: Mapping[str, Origin] = field(default_factory=dict, compare=False)

    def origins(self) -> dict[str, Origin]:
        """Option name to the place its value came from."""
        return {option.name: self._origins.get(option.name, _DEFAULT) for option in OPTIONS}

    def as_dict(self, redacted: bool = True) -> dict[str, Any]:
        """Option name to value, JSON-able. With ``redacted`` secrets are masked, in URLs too."""
        result: dict[str, Any] = {}
        for option in OPTIONS:
            value = getattr(self, option.name)
            if isinstance(value, Path):
                value = str(value)
            elif redacted and isinstance(value, str):
                value = MASK if option.secret else option.show(value)
            result[option.name] = value
        return result

    @property
    def objects(self) -> dict[str, str]:
        """The settings of objects that are set, as :func:`mover.target.url.open_target` takes them."""
        names = ("sse", "sse_kms_key_id", "storage_class", "tags", "object_lock")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def secrets(self) -> list[str]:
        """The values that must appear nowhere; for a log filter."""
        found = [getattr(self, option.name) for option in OPTIONS if option.secret]
        for address in (self.source, self.dest, self.catalog):
            found += url_secrets(address) if address else []
        return [value for value in found if value]

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.as_dict().items())})"


def _options() -> Iterator[Option]:
    for member in dataclasses.fields(Settings):
        if "option" in member.metadata:
            entry = dict(member.metadata["option"])
            entry["toml"] = entry["toml"] or member.name
            yield Option(name=member.name, **entry)


OPTIONS: tuple[Option, ...] = tuple(_options())


def find_file(flag: str | Path | None, env: Mapping[str, str]) -> Path | None:
    """The configuration file to read: the flag, else ``$MOVER_CONFIG``, else ``/etc/mover/mover.toml`` if it exists.

    A file that somebody named must exist: the first two are returned unseen and :func:`load` refuses a missing one.
    """
    named = flag or env.get(FILE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def load(flags: Mapping[str, object], env: Mapping[str, str], file: Path | None) -> Settings:
    """Settings from all four places.

    Args:
        flags: option name to value; None means that the flag was not given.
        env: the environment; an empty variable counts as not set.
        file: TOML file, or None. Relative paths in it are relative to its directory.

    Raises:
        ConfigError: a value does not parse, the file cannot be read, or it has a key that is not in the table.
    """
    in_file = _read_file(file) if file is not None else {}
    chosen: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for option in OPTIONS:
        if flags.get(option.name) is not None:
            raw, origin = flags[option.name], Origin("flag", option.flag or "")
        elif env.get(option.env):
            raw, origin = env[option.env], Origin("environment", option.env)
        elif option.toml in in_file:
            raw, origin = in_file[option.toml], Origin("file", f"{file}: {option.toml}")
        else:
            chosen[option.name], origins[option.name] = option.default(env), _DEFAULT
            continue
        try:
            value = option.parse(raw)
        except ValueError as error:
            raise ConfigError(f"{origin.place or option.name} {error}", hint=option.help) from None
        if origin.kind == "file" and file is not None and isinstance(value, Path):
            value = file.resolve().parent / value
        chosen[option.name], origins[option.name] = value, origin
    _secret_from_file(chosen, origins, "source_password", "password")
    _secret_from_file(chosen, origins, "encrypt_passphrase", "passphrase")
    return Settings(**chosen, _origins=origins)


def unknown_variables(env: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """``MOVER_*`` variables that nothing reads, each with the nearest one that is read: most often a slip."""
    known = {option.env for option in OPTIONS} | _FOREIGN_VARIABLES
    strange = sorted(name for name in env if name.startswith("MOVER_") and name not in known)
    return [(name, _nearest(name, known)) for name in strange]


def _read_file(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        with file.open("rb") as stream:
            tree = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(
            f"configuration file {file} cannot be read: {(error.strerror or 'i/o error').lower()}",
            hint="Name another file with --config or MOVER_CONFIG.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"configuration file {file} is not TOML: {error}", hint="See the example in the README."
        ) from None
    known = {option.toml for option in OPTIONS}
    found = dict(_flatten(tree))
    for key in found:
        if key not in known:
            near = _nearest(key, known)
            raise ConfigError(
                f"configuration file {file}: unknown key {key!r}",
                hint=f"Did you mean {near!r}?" if near else "`mover config show` lists every key.",
            )
    return found


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nearest(word: str, known: set[str]) -> str | None:
    import difflib

    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return close[0] if close else None


def _secret_from_file(chosen: dict[str, Any], origins: dict[str, Origin], name: str, what: str) -> None:
    """The file of a secret counts where it was named at least as near as the secret itself, which wins a tie."""
    file: Path | None = chosen[f"{name}_file"]
    rank = ("flag", "environment", "file", "default")
    if file is None:
        return
    if rank.index(origins[name].kind) <= rank.index(origins[f"{name}_file"].kind):
        return
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(
            f"{what} file {file} cannot be read: {str(reason).lower()}",
            hint=f"Name a file that this user can read, with the {what} on its first line.",
        ) from None
    chosen[name] = lines[0] if lines else ""
    origins[name] = Origin("file", str(file))
