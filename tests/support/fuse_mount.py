"""A real file system that misbehaves on demand: a directory seen through FUSE, in a process of its own.

``python fuse_mount.py MOUNT BACKING STATE`` serves it; STATE/faults.json names operations that hang or fail, and an
operation that hangs leaves STATE/hung.<operation>. With a plan operations are counted and those from a number on fail;
STATE/counted has the count and the names of those that failed. Renaming without replacing is refused, as by NFS.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest


class FuseMount:
    """A mounted one. ``path`` is where programs see it, ``backing`` where its files are."""

    def __init__(self, directory: Path, below: str) -> None:
        self.path = directory / "mount"
        self.backing = directory / "backing"
        self.state = directory / "state"
        for made in (self.path, self.backing, self.state):
            made.mkdir()
        (self.path / below).mkdir(exist_ok=True)
        self._numbers = itertools.count(1)
        self.faults()
        command = [sys.executable, __file__, self.path, self.backing, self.state]
        self._log = (self.state / "log").open("wb")
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + 30
        while not os.path.ismount(self.path):
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"FUSE does not work here: {(self.state / 'log').read_text()[-300:]}")
            time.sleep(0.01)

    def faults(
        self, *, hang: tuple[str, ...] = (), fail: dict[str, int] | None = None, late: dict[str, int] | None = None
    ) -> None:
        """From now on the operations in ``hang`` ("*" = all) do not return, those in ``fail`` return an errno.

        Those in ``late`` are done and return an errno all the same: the second answer of a server whose first was lost.
        """
        for old in self.state.glob("hung.*"):
            old.unlink()
        self._write({"hang": hang, "fail": fail or {}, "late": late or {}})

    def _write(self, faults: dict[str, object]) -> None:
        new = self.state / "faults.new"
        new.write_text(json.dumps({"hang": (), "fail": {}, "late": {}, "plan": None} | faults))
        new.replace(self.state / "faults.json")

    def plan(self, *, at: int | None, code: int = 0, times: int = 1) -> None:
        """Count operations from now on; the one with the number ``at`` (from 0) and the ``times`` - 1 after it fail."""
        (self.state / "counted").unlink(missing_ok=True)
        self._write({"plan": {"id": next(self._numbers), "at": at, "code": code, "times": times}})

    def counted(self) -> tuple[int, list[str]]:
        """How many operations there were since :meth:`plan`, and which of them failed by it."""
        try:
            said = json.loads((self.state / "counted").read_text())
        except FileNotFoundError:
            return 0, []
        return said["count"], said["failed"]

    def unmount(self) -> None:
        """Lazily, as an administrator does it while it is in use: the path leads to the directory below."""
        subprocess.run(["umount", "-l", self.path], check=True)

    def hung(self, operation: str) -> bool:
        """Whether such an operation hangs now."""
        return (self.state / f"hung.{operation}").exists()

    def kill(self) -> None:
        """The server of the file system is gone; the mount stays and answers ENOTCONN."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        subprocess.run(["umount", "-l", self.path], check=False, capture_output=True)
        self._log.close()


@contextmanager
def fuse_mount(directory: Path, *, below: str = "."):
    """A mounted file system below ``directory``; skips the test where that is not possible.

    Args:
        below: a directory that is there, on the local disk, when it is not mounted.
    """
    pytest.importorskip("mfusepy", reason="libfuse is not installed", exc_type=(ImportError, OSError))
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no /dev/fuse")
    mount = FuseMount(directory, below)
    try:
        yield mount
    finally:
        mount.close()


def serve(mount: str, backing: str, state: str) -> None:
    """Run the file system until it is unmounted or killed."""
    import mfusepy

    class Strict(mfusepy.FUSE):
        def rename_fuse_3(self, old, new, flags):
            if flags:
                raise OSError(errno.EINVAL, "no flags")
            return self.rename_fuse_2(old, new)

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: it does not outlive the tests

    class Files(mfusepy.Operations):
        use_ns = True

        def __init__(self) -> None:
            self._lock = threading.Lock()
            self._plan, self._count, self._failed = 0, 0, []

        def _planned(self, operation: str, plan) -> None:
            """Count it, and fail when the plan says so."""
            with self._lock:
                if plan["id"] != self._plan:
                    self._plan, self._count, self._failed = plan["id"], 0, []
                number, self._count = self._count, self._count + 1
                fails = plan["at"] is not None and 0 <= number - plan["at"] < plan["times"]
                self._failed += [operation] if fails else []
                said = Path(state, "counted.new")
                said.write_text(json.dumps({"count": self._count, "failed": self._failed}))
                said.replace(Path(state, "counted"))
            if fails:
                raise OSError(plan["code"], os.strerror(plan["code"]))

        def _leave(self, operation: str) -> None:
            if code := json.loads(Path(state, "faults.json").read_text())["late"].get(operation):
                raise OSError(code, os.strerror(code))

        def _enter(self, operation: str) -> None:
            faults = json.loads(Path(state, "faults.json").read_text())
            if faults["plan"]:
                self._planned(operation, faults["plan"])
            if code := faults["fail"].get(operation):
                raise OSError(code, os.strerror(code))
            while {operation, "*"} & set(faults["hang"]):
                Path(state, f"hung.{operation}").touch()
                time.sleep(0.005)
                faults = json.loads(Path(state, "faults.json").read_text())

        def getattr(self, path, fh=None):
            self._enter("getattr")
            found = os.fstat(fh) if fh else os.lstat(backing + path)
            names = ("ino", "mode", "nlink", "uid", "gid", "size", "blocks")
            attributes = {f"st_{name}": getattr(found, f"st_{name}") for name in names}
            return attributes | {f"st_{kind}time": getattr(found, f"st_{kind}time_ns") for kind in "amc"}

        def readdir(self, path, fh):
            self._enter("readdir")
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(backing + path)]
            return [(name, {"st_ino": status.st_ino, "st_mode": status.st_mode}, 0) for name, status in found]

        def create(self, path, mode, fi=None):
            self._enter("create")
            return os.open(backing + path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

        def open(self, path, flags):
            self._enter("open")
            return os.open(backing + path, flags & os.O_ACCMODE)

        def read(self, path, size, offset, fh):
            self._enter("read")
            return os.pread(fh, size, offset)

        def write(self, path, data, offset, fh):
            self._enter("write")
            return os.pwrite(fh, data, offset)

        def truncate(self, path, length, fh=None):
            self._enter("truncate")
            os.truncate(fh or backing + path, length)

        def fallocate(self, path, mode, offset, size, fh):
            if libc.fallocate64(fh, mode, ctypes.c_int64(offset), ctypes.c_int64(size)):
                raise OSError(ctypes.get_errno(), "fallocate")
            return 0

        def fsync(self, path, datasync, fh):
            self._enter("fsync")
            os.fsync(fh)

        def fsyncdir(self, path, datasync, fh):
            self._enter("fsyncdir")
            return 0

        def flush(self, path, fh):
            self._enter("close")  # what close() returns
            return 0

        def release(self, path, fh):
            os.close(fh)
            return 0

        def link(self, target, source):
            self._enter("link")
            os.link(backing + source, backing + target)
            self._leave("link")

        def rename(self, old, new):
            self._enter("rename")
            os.rename(backing + old, backing + new)
            self._leave("rename")

        def unlink(self, path):
            self._enter("unlink")
            os.unlink(backing + path)
            self._leave("unlink")

        def mkdir(self, path, mode):
            self._enter("mkdir")
            os.mkdir(backing + path, mode)
            self._leave("mkdir")

        def rmdir(self, path):
            self._enter("rmdir")
            os.rmdir(backing + path)

        def chmod(self, path, mode):
            os.chmod(backing + path, mode)
            return 0

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = {"use_ino": True, "attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    Strict(Files(), mount, foreground=True, fsname="mover-test", **options)


if __name__ == "__main__":
    serve(*sys.argv[1:])
