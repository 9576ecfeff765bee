"""A real NFS 4.1 server on loopback, nfs-ganesha, and client mounts of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nfs_bridge
import pytest

_SECONDS = 30
_CONFIGURATION = """
NFS_CORE_PARAM {{ NFS_Port = {port}; Protocols = 4; Bind_addr = 127.0.0.1; Enable_NLM = false; Enable_RQUOTA = false; }}
NFSv4 {{ Graceless = true; RecoveryRoot = "{state}"; Minor_Versions = 1, 2; Lease_Lifetime = 20; }}
EXPORT {{
    Export_Id = 1; Path = "{export}"; Pseudo = "/exp"; Access_Type = RW; Squash = None; SecType = sys; Protocols = 4;
    Transports = TCP; FSAL {{ Name = VFS; }}
}}
LOG {{ Default_log_level = EVENT; }}
"""


class NfsServer:
    """It serves ``export``, a directory here, as /exp at ``port``."""

    def __init__(self, directory: Path) -> None:
        self.export = directory / "export"
        self.export.mkdir()
        # In memory where that can be had: each write is committed, and other tests keep the disk busy.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.export], check=False, capture_output=True)
        self._state = directory / "ganesha"
        self._state.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._configuration = self._state / "conf"
        self._configuration.write_text(
            _CONFIGURATION.format(port=self.port, state=self._state, export=self.export), encoding="utf-8"
        )
        self.start()

    def start(self) -> None:
        """Serve; also again after :meth:`kill`."""
        log = self._state / "log"
        arguments = {"-f": self._configuration, "-p": self._state / "pid", "-L": log}
        command = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "ganesha.nfsd",
            "-F",
            *(str(word) for pair in arguments.items() for word in pair),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-500:] if log.exists() else "nothing"
                self.close()
                pytest.skip(f"nfs-ganesha does not run here: {said}")
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        subprocess.run(["umount", "-l", self.export], check=False, capture_output=True)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class NfsMount:
    """A mount of a server. ``path`` is where programs see it."""

    def __init__(self, directory: Path, server: NfsServer, **options: object) -> None:
        self.path = directory
        directory.mkdir()
        self.log = directory.with_name(directory.name + ".log")
        caching = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
        chosen = json.dumps({"use_ino": True, **caching, **options})
        command = [sys.executable, nfs_bridge.__file__, directory, str(server.port), "/exp", chosen]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _SECONDS
        while not os.path.ismount(directory):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                pytest.skip(f"the NFS bridge does not run here: {self.log.read_text(errors='replace')[-500:]}")
            time.sleep(0.01)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        subprocess.run(["umount", "-l", self.path], check=False, capture_output=True)


@contextmanager
def nfs_server(directory: Path) -> Iterator[NfsServer]:
    """A server with its files below ``directory``; skips the test where there is none."""
    if shutil.which("ganesha.nfsd") is None:
        pytest.skip("no NFS server: apt-get install nfs-ganesha nfs-ganesha-vfs (`make test` does it)")
    pytest.importorskip("nfs_rs", reason="nfs-rs is not installed")
    pytest.importorskip("mfusepy", reason="libfuse is not installed", exc_type=(ImportError, OSError))
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no /dev/fuse")
    server = NfsServer(directory)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def nfs_mount(directory: Path, server: NfsServer, **options: object) -> Iterator[NfsMount]:
    """``server`` mounted at ``directory``, which is made; ``options`` are FUSE's."""
    mount = NfsMount(directory, server, **options)
    try:
        yield mount
    finally:
        mount.close()
