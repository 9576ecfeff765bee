"""Two more real S3 servers on loopback, with the interface of :mod:`weed`: a second and a third opinion.

JuiceFS (the gateway of MinIO over a file system of its own) keeps no metadata of users and knows no conditional put;
rclone serves a directory, and knows neither checksums nor conditions. Both are single programs from PyPI.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from child import free_ports
from weed import Weed


class JuiceFS(Weed):
    name = "JuiceFS"

    def start(self) -> None:
        program = _program("juicefs")
        meta = f"sqlite3://{self.directory}/meta.db"
        data = self.directory / "data"
        data.mkdir()
        store = ["--storage", "file", "--bucket", f"{data}/"]
        subprocess.run([program, "format", *store, meta, "tests"], check=True, capture_output=True, timeout=60)
        (self.port,) = free_ports(1)
        options = ["--multi-buckets", "--keep-etag", "--no-usage-report", "--no-banner", "--cache-size", "64"]
        options += ["--cache-dir", str(self.directory / "cache"), "--free-space-ratio", "0.01"]
        self.run(
            [program, "gateway", *options, meta, f"127.0.0.1:{self.port}"],
            MINIO_ROOT_USER=self.access_id,
            MINIO_ROOT_PASSWORD=self.access_key,
        )


class Rclone(Weed):
    name = "rclone serve s3"

    def start(self) -> None:
        data = self.directory / "data"
        (data / self.bucket).mkdir(parents=True)
        (self.port,) = free_ports(1)
        options = ["--config", os.devnull, "--addr", f"127.0.0.1:{self.port}", "--vfs-cache-mode", "off"]
        options += ["--auth-key", f"{self.access_id},{self.access_key}"]
        self.run([_program("rclone"), "serve", "s3", *options, str(data)])


@contextmanager
def gateway(kind: type[Weed], directory: Path) -> Iterator[Weed]:
    """A server that is ready, with an empty bucket; killed at the end, whatever happens."""
    server = kind(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _program(name: str) -> str:
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"{name} is not installed: there is no wheel of {name}-bin for this machine")
    return str(path)
