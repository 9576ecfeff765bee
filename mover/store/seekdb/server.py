"""A seekdb engine as a child process: for drills, the demo and the tests.

The engine is crash-only: SIGTERM ends it without a flush and the next start replays the log, so stopping and killing
differ only in politeness. Three ways it can outlive or fool its starter are closed here:

* the starter dies: the child asks the kernel for SIGKILL at its parent's death (``PR_SET_PDEATHSIG``) before it becomes
  the engine; without a port it also runs ``--embedded``, where the engine itself exits when the last client lock goes;
* an orphan of an earlier run still serves the directory: ``run/seekdb.pid`` must name our own child before the socket
  is trusted;
* it neither boots nor exits (a damaged log file does that): booting has a deadline and the error has the log's tail.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncmy
import asyncmy.errors

from mover.errors import PreconditionError, SourceError
from mover.store.seekdb.socket_path import short_socket_path

_POLL_SECONDS = 0.05
_STOP_SECONDS = 10.0
_TAIL_BYTES = 4096

# Becomes the engine by exec, so the child's pid is the engine's. preexec_fn is not used: it runs Python between fork
# and exec, which deadlocks in a process with threads. The getppid check closes the gap before prctl.
_LAUNCH = """
import ctypes, os, sys
ctypes.CDLL(None, use_errno=True).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the starter of this engine is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class EngineBootError(SourceError):
    """The engine exited while booting, or was not ready by the deadline; ``log_tail`` is the end of what it said."""

    def __init__(self, message: str, *, log_tail: str, hint: str | None = None, **where: Any) -> None:
        super().__init__(message, hint=hint, **where)
        self.log_tail = log_tail


def find_engine() -> Path:
    """The server binary of the installed pylibseekdb wheel.

    Raises:
        PreconditionError: the wheel is not installed or has no server in it.
    """
    spec = importlib.util.find_spec("pylibseekdb")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(location) / "seekdb"
        if os.access(binary, os.X_OK):
            return binary
    raise PreconditionError(
        "no seekdb engine is installed in this Python environment", hint="install it with: pip install 'mover[demo]'"
    )


def free_port() -> int:
    """A TCP port that was free a moment ago. Somebody else may take it before the engine does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def engine_command(
    base_dir: Path | str,
    *,
    binary: Path | str = "seekdb",
    port: int | None = None,
    parameters: Mapping[str, str] | None = None,
    log_level: str = "ERROR",
) -> list[str]:
    """The argument list that boots a store in the foreground; without a port it serves only its unix socket."""
    command = [str(binary), f"--base-dir={base_dir}", "--nodaemon", f"--log-level={log_level}"]
    command += ["--embedded"] if port is None else ["--port", str(port)]
    for name, value in (parameters or {}).items():
        command += ["--parameter", f"{name}={value}"]
    return command


class SeekdbServer:
    """One engine process on one base directory.

    Args:
        base_dir: the engine's directory (``store/`` is below it); created when missing.
        port: TCP port to listen on, on all addresses; None = unix socket only.
        log_disk_size, memory_budget, datafile_size, datafile_maxsize: in the engine's spelling. A restored store needs
            ``log_disk_size`` at least as large as its source had.
        parameters: further engine parameters.
        log_level: of log/seekdb.log, which grows by megabytes a second at INFO under load.

    Use as an async context manager, or pair :meth:`start` with :meth:`stop` or :meth:`kill`.
    """

    def __init__(
        self,
        base_dir: Path | str,
        *,
        port: int | None = None,
        log_disk_size: str = "2G",
        memory_budget: str = "1G",
        datafile_size: str = "64M",
        datafile_maxsize: str = "8G",
        parameters: Mapping[str, str] | None = None,
        log_level: str = "ERROR",
        binary: Path | None = None,
    ) -> None:
        self.base_dir = Path(base_dir).absolute()
        self.port = port
        self.log_level = log_level
        self.parameters = {
            "memory_budget": memory_budget,
            "log_disk_size": log_disk_size,
            "datafile_size": datafile_size,
            "datafile_maxsize": datafile_maxsize,
            **(parameters or {}),
        }
        self._binary = binary
        self._process: asyncio.subprocess.Process | None = None
        self._client_lock: int | None = None

    @property
    def socket_path(self) -> Path:
        """The unix socket that speaks the MySQL protocol."""
        return self.base_dir / "run" / "sql.sock"

    @property
    def output_path(self) -> Path:
        """Where the engine's stdout and stderr go."""
        return self.base_dir / "log" / "engine.out"

    @property
    def pid(self) -> int | None:
        """The engine's process id while it runs."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def returncode(self) -> int | None:
        """Exit status of the last run, negative for a signal; None while it runs."""
        return self._process.returncode if self._process else None

    @property
    def source_url(self) -> str:
        """The ``--source`` of this engine."""
        return f"seekdb://{self.base_dir}"

    def command(self) -> list[str]:
        """The engine's argument list."""
        return engine_command(
            self.base_dir,
            binary=self._binary or find_engine(),
            port=self.port,
            parameters=self.parameters,
            log_level=self.log_level,
        )

    async def start(self, boot_seconds: float = 60.0) -> None:
        """Start the engine and wait until it answers SQL.

        Raises:
            PreconditionError: no engine binary, or this object runs one already.
            EngineBootError: it exited or was not ready in ``boot_seconds``; nothing is left running.
        """
        if self.running:
            raise PreconditionError(f"an engine already runs on {self.base_dir} (pid {self.pid})")
        command = self.command()
        self._prepare_directories()
        self._take_client_lock()
        output = os.open(self.output_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        environment = dict(os.environ)
        # The wheel's own libaio.so.1 lies beside the binary; its RUNPATH names $ORIGIN, older wheels' did not.
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(
            filter(None, (str(Path(command[0]).parent), environment.get("LD_LIBRARY_PATH")))
        )
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                "-c",
                _LAUNCH,
                str(os.getpid()),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.base_dir,
                env=environment,
                start_new_session=True,  # Ctrl-C on the terminal is mover's to handle, not the engine's
            )
        finally:
            os.close(output)
            if self._process is None:
                self._drop_client_lock()
        try:
            await self.wait_ready(boot_seconds)
        except BaseException:
            await self.kill()
            raise

    async def wait_ready(self, seconds: float) -> None:
        """Return once a query on the socket has been answered by our own child.

        Raises:
            EngineBootError: see :meth:`start`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while loop.time() < deadline:
            if not self.running:
                raise EngineBootError(
                    f"the engine on {self.base_dir} exited with status {self.returncode} while booting",
                    log_tail=self.log_tail(),
                    hint="read log_tail, or log/seekdb.log and log/engine.out in that directory",
                    path=str(self.base_dir),
                )
            if self._recorded_pid() == self.pid and await self._answers():
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise EngineBootError(
            f"the engine on {self.base_dir} was not ready after {seconds:g} s",
            log_tail=self.log_tail(),
            hint="a damaged or missing log file makes the engine wait for ever; a large log takes its time to replay",
            path=str(self.base_dir),
        )

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL when it does not go. Idempotent; returns when the process is reaped."""
        if self.running and self._process:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                pass
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL, as a crash would. Idempotent; returns when the process is reaped."""
        try:
            if self.running and self._process:
                try:
                    os.killpg(self._process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                # Shielded: a cancelled caller must not leave a zombie behind.
                await asyncio.shield(self._process.wait())
        finally:
            self._drop_client_lock()

    def connection_options(self) -> dict[str, Any]:
        """Keyword arguments for ``asyncmy.connect`` (user root, no password, unix socket)."""
        return {"user": "root", "password": "", "unix_socket": short_socket_path(self.socket_path)}

    def log_tail(self) -> str:
        """The last few KiB of what the engine printed and logged; empty when it said nothing."""
        parts = []
        for path in (self.output_path, self.base_dir / "log" / "seekdb.log"):
            try:
                with path.open("rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                    parts.append(file.read(_TAIL_BYTES).decode("utf-8", "replace").strip())
            except OSError:
                continue
        return "\n".join(part for part in parts if part)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _prepare_directories(self) -> None:
        for directory in (self.base_dir, self.base_dir / "run", self.base_dir / "log"):
            directory.mkdir(parents=True, exist_ok=True)

    def _take_client_lock(self) -> None:
        # An embedded engine exits as soon as it can lock run/seekdb.clients exclusively: hold it shared from before
        # the start for as long as the engine shall live. The lock dies with this process, and the engine after it.
        if self.port is None and self._client_lock is None:
            path = self.base_dir / "run" / "seekdb.clients"
            self._client_lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._client_lock, fcntl.LOCK_SH)

    def _drop_client_lock(self) -> None:
        if self._client_lock is not None:
            os.close(self._client_lock)
            self._client_lock = None

    def _recorded_pid(self) -> int | None:
        try:
            return int((self.base_dir / "run" / "seekdb.pid").read_text().strip())
        except (OSError, ValueError):
            return None

    async def _answers(self) -> bool:
        if not self.socket_path.exists():
            return False
        try:
            connection = await asyncmy.connect(**self.connection_options(), connect_timeout=2, read_timeout=10)
        except (asyncmy.errors.Error, OSError, TimeoutError):
            return False
        try:
            async with connection.cursor() as cursor:
                # A table, not SELECT 1: the answer proves that the tablets were replayed, not only that SQL parses.
                await cursor.execute("SELECT count(*) FROM oceanbase.__all_tablet_to_table")
                return await cursor.fetchone() is not None
        except (asyncmy.errors.Error, OSError, TimeoutError):
            return False
        finally:
            await connection.ensure_closed()
