"""One run of one side: a pipe of processes, its wall time, the CPU seconds of its whole tree, and its memory.

Both sides of a comparison are measured by this code and nothing else. CPU seconds are what ``wait4`` says of each stage
and of all that it waited for. Work that the kernel does in threads of its own (writing back dirty pages) belongs to no
process and is counted for nobody.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mover.errors import MoverError

_TICK = 0.02  # seconds between two looks at the memory
_LAST_WORDS = 500
_PURE = "MOVER_PURE"


@dataclass(frozen=True, slots=True)
class Stage:
    """One process of a pipe. ``secrets`` is environment too, but never shown."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run took. ``start_*`` is the part before the work began, where the process said so, else 0."""

    seconds: float
    cpu_seconds: float
    rss_bytes: int
    bytes_in: int
    bytes_out: int  # 0: not known
    start_seconds: float = 0.0
    start_cpu_seconds: float = 0.0
    told: Mapping[str, Any] = field(default_factory=dict)  # the whole report of the process

    def time(self, *, steady: bool) -> float:
        """Seconds; ``steady`` leaves the start out."""
        return max(self.seconds - self.start_seconds * steady, 1e-9)

    def rate(self, *, steady: bool) -> float:
        """GB of input per second; ``steady`` leaves the start out."""
        return self.bytes_in / 1e9 / self.time(steady=steady)

    def cost(self, *, steady: bool) -> float:
        """CPU seconds per GB of input."""
        return (self.cpu_seconds - self.start_cpu_seconds * steady) / (self.bytes_in / 1e9)


def run_pipe(stages: Sequence[Stage], *, bytes_in: int, report: Path | None = None, timeout: float = 3600.0) -> Sample:
    """Run the stages, each one's stdout being the next one's stdin, to their end.

    Args:
        bytes_in: what goes in, when the stages do not say it themselves.
        report: a JSON file that the last stage may write: ``bytes_in``, ``bytes_out``, ``ready_at`` (of the monotonic
            clock), ``ready_cpu_seconds`` and whatever else it has to say.
        timeout: seconds, after which the processes are killed.

    Raises:
        MoverError: a stage could not be started, failed or took too long; its last words are in the message.
    """
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as words:
        watch = _Watch()
        begun = time.monotonic()
        try:
            _start(stages, processes, words.fileno())
            watch.begin(processes)
            watch.look_on(begun + timeout)
        finally:
            # Each is the leader of a session: what it started goes with it.
            for process in processes:
                if process.pid not in watch.ended:
                    _kill(process.pid)
            for process in processes:
                watch.joined(process)
        words.seek(0)
        said = words.read().decode(errors="replace").strip()
    for stage, process in zip(stages, processes, strict=True):
        if watch.overdue or process.returncode:
            how = f"took more than {timeout:g} s" if watch.overdue else f"ended with status {process.returncode}"
            raise MoverError(
                f"{Path(stage.argv[0]).name} {how}" + (f": {said[-_LAST_WORDS:]}" if said else ""),
                hint="the benchmark needs every run of both sides to succeed",
            )
    told = json.loads(report.read_text()) if report is not None and report.exists() else {}
    return Sample(
        seconds=max(watch.ended.values()) - begun,
        cpu_seconds=watch.cpu_seconds,
        rss_bytes=watch.rss_bytes,
        bytes_in=int(told.get("bytes_in", bytes_in)),
        bytes_out=int(told.get("bytes_out", 0)),
        start_seconds=max(0.0, float(told["ready_at"]) - begun) if "ready_at" in told else 0.0,
        start_cpu_seconds=float(told.get("ready_cpu_seconds", 0.0)),
        told=told,
    )


def _start(stages: Sequence[Stage], processes: list[subprocess.Popen[bytes]], words: int) -> None:
    # What mover is told is not for its peers: it may hold a password or keys.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MOVER_") or name == _PURE}
    upstream = os.open(os.devnull, os.O_RDONLY)
    try:
        for number, stage in enumerate(stages, 1):
            last = number == len(stages)
            try:
                process = subprocess.Popen(
                    list(stage.argv),
                    stdin=upstream,
                    stdout=subprocess.DEVNULL if last else subprocess.PIPE,
                    stderr=words,
                    env=inherited | dict(stage.environment) | dict(stage.secrets),
                    start_new_session=True,
                )
            except OSError as error:
                raise MoverError(f"can not run {stage.argv[0]}: {error.strerror}") from error
            processes.append(process)
            os.close(upstream)
            upstream = -1
            if process.stdout is not None:
                upstream = os.dup(process.stdout.fileno())
                process.stdout.close()
    finally:
        if upstream >= 0:
            os.close(upstream)


class _Watch:
    """Waits for the processes of a pipe, each in a thread, and looks at the memory of their trees meanwhile."""

    def __init__(self) -> None:
        self.ended: dict[int, float] = {}  # by process id: the moment
        self.cpu_seconds = 0.0
        self.rss_bytes = 0
        self.overdue = False
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._running: dict[int, threading.Event] = {}

    def begin(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self._running = {process.pid: threading.Event() for process in processes}
        for process in processes:
            threading.Thread(target=self._wait_for, args=(process,), daemon=True).start()

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        _, status, used = os.wait4(process.pid, 0)
        now = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        with self._lock:
            self.ended[process.pid] = now
            self.cpu_seconds += used.ru_utime + used.ru_stime
            self._running[process.pid].set()
            if all(event.is_set() for event in self._running.values()):
                self._done.set()

    def look_on(self, deadline: float) -> None:
        """Until all have ended or the deadline has passed."""
        while not self._done.wait(_TICK):
            self.rss_bytes = max(self.rss_bytes, sum(_tree_rss(pid) for pid in list(self._running)))
            if time.monotonic() > deadline:
                self.overdue = True
                return

    def joined(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the thread that waits for ``process``; reap it here when no thread was started."""
        event = self._running.get(process.pid)
        if event is not None:
            event.wait()
        elif process.returncode is None:
            process.wait()


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _tree_rss(pid: int) -> int:
    """High-water marks of the resident memory of a process and its descendants, bytes; 0 when it is gone.

    Not ``ru_maxrss``: that survives exec, so it would count the pages of the process that started this one.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return 0
    own = next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
    return own + sum(_tree_rss(int(child)) for text in children for child in text.split())
