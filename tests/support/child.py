"""Servers as children of the tests: on ports of their own, and gone when the tests are."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

# The child asks for SIGKILL at its parent's death, then becomes the server.
_LAUNCH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the tests are gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def start_child(command: Sequence[str], *, log: IO[bytes], cwd: Path, **environment: str) -> "subprocess.Popen[bytes]":
    """Start ``command`` (its first word a path), both outputs into ``log``, with ``environment`` beside our own."""
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _LAUNCH, str(os.getpid()), *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env={**os.environ, **environment},
        start_new_session=True,  # ^C in a terminal is for the tests, which then stop the server
    )


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now. Held open together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
