"""Where a seekdb keeps what: the directories below its base directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mover.errors import ConfigError

BLOCK_FILE = "sstable/block_file"
SLOG_SYS = "slog/sys"
PALF_META = "redo/sys/log_stream/meta"
PALF_LOG = "redo/sys/log_stream/log"


@dataclass(frozen=True, slots=True)
class StorePaths:
    """The directories of one store. ``--data-dir`` and ``--redo-dir`` of the engine may lie outside ``base``."""

    base: Path
    data: Path
    redo: Path

    @classmethod
    def of_base(cls, base: Path | str, data_dir: str = "store", redo_dir: str = "") -> StorePaths:
        """Resolve the engine's ``data_dir`` and ``redo_dir`` parameters against its base directory."""
        root = Path(base).absolute()
        data = root / data_dir
        return cls(root, data, root / redo_dir if redo_dir else data / "redo")

    @property
    def block_file(self) -> Path:
        return self.data / BLOCK_FILE

    @property
    def meta_db(self) -> Path:
        """SQLite file of the engine with parameters and merge history; a copy boots without it."""
        return self.data / "sstable" / "meta.db"

    @property
    def slog_sys(self) -> Path:
        return self.data / SLOG_SYS

    @property
    def palf_meta(self) -> Path:
        return self.redo / "sys" / "log_stream" / "meta"

    @property
    def palf_log(self) -> Path:
        return self.redo / "sys" / "log_stream" / "log"

    @property
    def socket(self) -> Path:
        return self.base / "run" / "sql.sock"

    @property
    def pid_file(self) -> Path:
        return self.base / "run" / "seekdb.pid"

    def check(self) -> None:
        """Raise ConfigError when this is not the base directory of a seekdb that was started at least once."""
        for path in (self.block_file, self.slog_sys, self.palf_log, self.palf_meta):
            if not path.exists():
                raise ConfigError(
                    f"{self.base} is not a seekdb base directory: {path} does not exist",
                    hint="name the directory that was given to seekdb as --base-dir",
                    path=str(path),
                )


def numbered_files(directory: Path) -> list[int]:
    """The ids of the files in ``directory`` whose names are plain decimal numbers, ascending.

    The engine names log and slog files by number; anything else there (``.tmp`` while one is made) is not a file yet.
    """
    try:
        names = [entry.name for entry in directory.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())
