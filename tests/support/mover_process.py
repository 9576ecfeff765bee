"""The command line as a process of its own, the way a person or cron runs it.

Every process asks the kernel for SIGKILL at the death of the tests, so that none can outlive them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polling import until

_LAUNCH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the tests are gone")
os.execv(sys.executable, [sys.executable, "-m", "mover", *sys.argv[2:]])
"""


@dataclass(frozen=True)
class Ran:
    """How a run ended: exit status (negative for a signal) and both streams."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; anything else there is a failure."""
        lines = self.lines
        assert len(lines) == 1, f"{self}: not one line on stdout"
        return lines[0]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Every line of stdout, each of which must be a JSON object."""
        found = [json.loads(line) for line in self.out.splitlines()]
        assert all(isinstance(line, dict) for line in found), f"{self}: something else than objects on stdout"
        return found

    @property
    def error(self) -> dict[str, Any]:
        """The error object."""
        return self.json["error"]

    def ok(self, code: int = 0) -> dict[str, Any]:
        """The object on stdout of a run that must have ended with ``code``."""
        assert self.code == code, str(self)
        return self.json

    def __str__(self) -> str:
        return f"mover {' '.join(self.arguments)}: exit {self.code}\n{self.out[-4000:]}\n{self.err[-4000:]}"


class Background:
    """A run that goes on beside the test; its streams are files."""

    def __init__(self, process: asyncio.subprocess.Process, arguments: tuple[str, ...], stem: Path) -> None:
        self.process = process
        self.arguments = arguments
        self.out_path = stem.with_suffix(".out")
        self.err_path = stem.with_suffix(".err")

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def so_far(self) -> Ran:
        """What it has said; the code is that of the end, or 0 while it runs."""
        return Ran(self.arguments, self.process.returncode or 0, self.out_path.read_text(), self.err_path.read_text())

    async def wait(self, seconds: float = 120) -> Ran:
        """Until it ends by itself."""
        async with asyncio.timeout(seconds):
            await self.process.wait()
        return _checked(self.so_far())

    async def terminate(self, seconds: float = 60) -> Ran:
        """SIGTERM, and wait for the end."""
        if self.running:
            self.process.terminate()
        return await self.wait(seconds)

    async def kill(self) -> None:
        """SIGKILL, as a crash. Idempotent."""
        if self.running:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@dataclass
class Mover:
    """Runs commands with the same settings; ``settings`` are option names as in MOVER_*.

    Args:
        directory: home, state and output of the processes.
        environment: more variables, such as the keys of an object store.
    """

    directory: Path
    settings: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    _started: int = 0
    _running: list[Background] = field(default_factory=list)

    def but(self, directory: Path | None = None, **settings: str) -> Mover:
        """A copy with other settings. Its background processes are its own."""
        return Mover(directory or self.directory, {**self.settings, **settings}, dict(self.environment))

    async def run(self, *arguments: object, seconds: float = 240) -> Ran:
        """Run one command to its end with ``--json``."""
        words = tuple(map(str, arguments))
        process = await self._start(words, asyncio.subprocess.PIPE, asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(seconds):
                out, err = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return _checked(Ran(words, process.returncode, out.decode(), err.decode()))

    async def ok(self, *arguments: object, code: int = 0, seconds: float = 240) -> dict[str, Any]:
        """Run one command that must end with ``code``; its JSON."""
        return (await self.run(*arguments, seconds=seconds)).ok(code)

    async def start(self, *arguments: object) -> Background:
        """Start a command that goes on; end it with the object's methods or :meth:`close`."""
        words = tuple(map(str, arguments))
        self._started += 1
        self.directory.mkdir(parents=True, exist_ok=True)
        stem = self.directory / f"run{self._started}-{os.urandom(3).hex()}"
        with stem.with_suffix(".out").open("wb") as out, stem.with_suffix(".err").open("wb") as err:
            process = await self._start(words, out.fileno(), err.fileno())
        background = Background(process, words, stem)
        self._running.append(background)
        return background

    @asynccontextmanager
    async def running(self, *arguments: object) -> AsyncIterator[Background]:
        """A background command that is dead when the context ends."""
        background = await self.start(*arguments)
        try:
            yield background
        finally:
            await background.kill()

    async def close(self) -> None:
        """Kill whatever still runs."""
        for background in self._running:
            await background.kill()
        self._running.clear()

    async def _start(
        self, words: tuple[str, ...], out: int, err: int, *, json: bool = True
    ) -> asyncio.subprocess.Process:
        self.directory.mkdir(parents=True, exist_ok=True)
        foreign = ("MOVER_", "AWS_", "ALIBABA_", "OSS_", "TENCENTCLOUD_", "PYTEST_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment |= {"HOME": str(self.directory), "MOVER_STATE_DIR": str(self.directory / "state")}
        if "MOVER_PURE" in os.environ:
            environment["MOVER_PURE"] = os.environ["MOVER_PURE"]
        environment |= {f"MOVER_{name.upper()}": value for name, value in self.settings.items()}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _LAUNCH,
            str(os.getpid()),
            *words,
            *(["--json"] if json else []),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**environment, **self.environment},
        )


def _checked(ran: Ran) -> Ran:
    """No ending of a command may be a traceback, unless debugging was asked for, and none a defect."""
    assert '"InternalError"' not in ran.out, str(ran)
    assert "Traceback" not in ran.err or "debug" in ran.arguments, str(ran)
    return ran


__all__ = ["Background", "Mover", "Ran", "until"]
