"""Keeping log files that the engine recycles, without touching its configuration: hard links of our own.

The engine unlinks old log files every 10 to 15 s and creates every new one as a new inode; nothing is renamed or
reused. A second name for the inode therefore keeps the bytes, and the link made for the file that is being written
keeps filling. Everything here blocks; callers on an event loop use threads.

Layout of a hold directory, ``<base>/mover_hold/<holder>/``: one hard link per log file under the file's own number,
``from_lsn`` (decimal text: what must be kept), ``lock`` (flock of the process that owns the hold). A hold outlives its
process; the next one with the same holder name picks it up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from mover.errors import ConfigError, LogGapError, PreconditionError, SourceError
from mover.kernel.palf import PALF_FILE_BYTES
from mover.store.seekdb.paths import numbered_files

HOLD_DIRECTORY = "mover_hold"
# A file lives at least one recycling pass (10 s) after it appeared.
_POLL_SECONDS = 0.5
_HOLDER = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EROFS, errno.EACCES, errno.EOPNOTSUPP})


class LogHold:
    """Hard links to every log file at or after an LSN, under the name of one holder.

    Args:
        log_dir: the engine's log directory.
        roots: directories that may take ``mover_hold``, best first; links need one on the log's filesystem.
        holder: who holds, ``[a-z0-9_-]``; two processes cannot be the same holder at once.
    """

    def __init__(self, log_dir: Path, roots: Sequence[Path], holder: str) -> None:
        if not _HOLDER.fullmatch(holder):
            raise ConfigError(
                f"log holder name {holder!r} is not usable", hint="use lower-case letters, digits, - and _"
            )
        self.holder = holder
        self._log_dir = log_dir
        self._roots = tuple(root / HOLD_DIRECTORY for root in roots)
        self._directory: Path | None = None
        self._from_lsn: int | None = None
        self._lock_fd: int | None = None
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._failure: OSError | None = None

    @property
    def from_lsn(self) -> int | None:
        """What is held from; None = nothing is."""
        return self._from_lsn

    def open(self) -> None:
        """Pick up what an earlier process of this holder held, and go on holding it. Idempotent.

        Raises:
            PreconditionError: another living process is this holder.
        """
        with self._mutex:
            for root in self._roots:
                directory = root / self.holder
                if self._directory is None and (directory / "from_lsn").is_file():
                    self._adopt(directory)
                    self._from_lsn = _read_lsn(directory / "from_lsn")
            if self._directory is not None:
                self._link_new()
                self._watch()

    def hold(self, lsn: int) -> None:
        """Link every file that has log at or after ``lsn`` now, and every later one when it appears.

        An older hold of the same holder is widened, never narrowed (:meth:`release` does that).

        Raises:
            LogGapError: the file of ``lsn`` or a later one is gone already.
            SourceError: no directory on the log's filesystem takes links.
            PreconditionError: another living process is this holder.
        """
        with self._mutex:
            if self._directory is None:
                self._adopt(self._choose_directory())
            previous = self._from_lsn
            self._set_from(lsn if previous is None else min(lsn, previous))
            self._link_new()
            ids = self._held_ids()
            expected = lsn // PALF_FILE_BYTES
            for file_id in ids:
                if file_id < lsn // PALF_FILE_BYTES:
                    continue
                if file_id != expected:
                    raise LogGapError(
                        f"log [{max(lsn, expected * PALF_FILE_BYTES)}, {file_id * PALF_FILE_BYTES}) was recycled"
                        " before it could be held",
                        from_lsn=max(lsn, expected * PALF_FILE_BYTES),
                        until_lsn=file_id * PALF_FILE_BYTES,
                        path=str(self._log_dir),
                    )
                expected += 1
            self._watch()

    def release(self, lsn: int) -> None:
        """Drop the links of files that end at or before ``lsn``. Idempotent; without a hold it does nothing."""
        with self._mutex:
            if self._directory is None or self._from_lsn is None:
                return
            # The number first: a crash in between leaves a link too many, which the next release removes.
            self._set_from(max(lsn, self._from_lsn))
            for file_id in self._held_ids():
                if (file_id + 1) * PALF_FILE_BYTES <= self._from_lsn:
                    _unlink(self._directory / str(file_id))

    def files(self) -> dict[int, Path]:
        """Every log file that can be read now, by id: the engine's, and held ones it has recycled.

        Raises:
            SourceError: the watcher could not link a file; the hold has a hole from there on.
        """
        if self._failure is not None:
            raise SourceError(
                f"cannot hold log files in {self._directory}: {os.strerror(self._failure.errno or 0)}",
                hint="check free inodes and permissions there; log may be recycled before it is archived",
                path=str(self._directory),
            )
        found = {}
        directory = self._directory
        if directory is not None:
            found = {file_id: directory / str(file_id) for file_id in numbered_files(directory)}
        for file_id in numbered_files(self._log_dir):
            found[file_id] = self._log_dir / str(file_id)
        return dict(sorted(found.items()))

    def path_of(self, file_id: int) -> Path | None:
        """The file, from the engine's directory or from the hold; None when neither has it."""
        for directory in (self._log_dir, self._directory):
            if directory is not None and (directory / str(file_id)).exists():
                return directory / str(file_id)
        return None

    def held_bytes(self) -> int:
        """Disk space that only the links keep: files the engine has recycled already."""
        directory = self._directory
        if directory is None:
            return 0
        total = 0
        for file_id in numbered_files(directory):
            try:
                status = (directory / str(file_id)).stat()
            except FileNotFoundError:
                continue
            total += status.st_blocks * 512 if status.st_nlink == 1 else 0
        return total

    def close(self, *, keep: bool) -> None:
        """Stop watching; without ``keep`` also remove every link. Idempotent."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        with self._mutex:
            directory, self._directory = self._directory, None
            if directory is not None and not keep:
                for file_id in numbered_files(directory):
                    _unlink(directory / str(file_id))
                for name in ("from_lsn", "from_lsn.tmp", "link.tmp", "lock"):
                    _unlink(directory / name)
                for empty in (directory, directory.parent):
                    try:
                        empty.rmdir()
                    except OSError:
                        break  # another holder lives there
                self._from_lsn = None
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None

    def _choose_directory(self) -> Path:
        """The first candidate whose filesystem lets us link a log file."""
        sample = next(iter(numbered_files(self._log_dir)), None)
        if sample is None:
            raise SourceError(f"{self._log_dir} has no log files", path=str(self._log_dir))
        refused: list[str] = []
        for root in self._roots:
            directory = root / self.holder
            probe = directory / "link.tmp"
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                _unlink(probe)
                _link_any(self._log_dir, probe)
                _unlink(probe)
                return directory
            except OSError as error:
                if error.errno not in _CANNOT_LINK:
                    raise
                refused.append(f"{root}: {error.strerror}")
                for empty in (directory, root):
                    try:
                        empty.rmdir()
                    except OSError:
                        break
        raise SourceError(
            f"log files of {self._log_dir} cannot be hard-linked: {'; '.join(refused)}",
            hint="mover must run as the engine's user, and the log's filesystem must allow hard links",
            path=str(self._log_dir),
        )

    def _adopt(self, directory: Path) -> None:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise PreconditionError(
                f"another mover process holds the log as {self.holder!r} in {directory}",
                hint="wait for the other run to end, or stop it",
                path=str(directory),
            ) from None
        self._lock_fd = lock
        self._directory = directory

    def _set_from(self, lsn: int) -> None:
        directory = self._own_directory()
        if lsn != self._from_lsn:
            temporary = directory / "from_lsn.tmp"
            temporary.write_text(f"{lsn}\n")
            temporary.rename(directory / "from_lsn")
            self._from_lsn = lsn

    def _held_ids(self) -> list[int]:
        return numbered_files(self._own_directory())

    def _own_directory(self) -> Path:
        if self._directory is None:
            raise SourceError(f"the log hold {self.holder!r} is closed")
        return self._directory

    def _link_new(self) -> None:
        directory = self._own_directory()
        start = (self._from_lsn or 0) // PALF_FILE_BYTES
        for file_id in numbered_files(self._log_dir):
            if file_id < start:
                continue
            source, link = self._log_dir / str(file_id), directory / str(file_id)
            try:
                status = source.stat()
                try:
                    if link.stat().st_ino == status.st_ino:
                        continue
                except FileNotFoundError:
                    pass
                # By way of a second name: a link left from an earlier life of the directory is replaced in one step.
                temporary = directory / "link.tmp"
                _unlink(temporary)
                os.link(source, temporary)
                temporary.rename(link)
            except FileNotFoundError:
                continue  # recycled between the listing and the link; a missing file shows as a gap when it is read

    def _watch(self) -> None:
        # A thread, not a task: a busy event loop must not cost log.
        if self._watcher is None:
            self._stop.clear()
            self._watcher = threading.Thread(target=self._run, name=f"mover-hold-{self.holder}", daemon=True)
            self._watcher.start()

    def _run(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            with self._mutex:
                try:
                    if self._directory is not None:
                        self._link_new()
                        self._failure = None
                except OSError as error:
                    self._failure = error


def _link_any(log_dir: Path, target: Path) -> None:
    """Link whichever log file still exists; the oldest may be recycled while we look."""
    for file_id in reversed(numbered_files(log_dir)):
        try:
            os.link(log_dir / str(file_id), target)
            return
        except FileNotFoundError:
            continue
    raise SourceError(f"{log_dir} has no log files", path=str(log_dir))


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _read_lsn(path: Path) -> int:
    text = path.read_text().strip()
    if not (text.isascii() and text.isdecimal()):
        raise SourceError(f"{path} does not hold an lsn", hint="remove that hold directory", path=str(path))
    return int(text)
