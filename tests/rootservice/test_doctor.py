"""Doctor: a good destination passes, each kind of bad one fails for its own reason, and nothing is left behind."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from mover.config import Settings
from mover.errors import TargetError
from mover.rootservice import doctor, doctor_source
from mover.rootservice.doctor import examine
from mover.rootservice.doctor_checks import Check, Examination, State
from mover.rootservice.doctor_source import SourceExam
from mover.store.seekdb.paths import StorePaths
from mover.store.seekdb.store import SeekdbStore
from mover.target.base import Buffer, Leftover, ObjectInfo, Target, Writer
from mover.target.files import FileTarget


class Bad:
    """A destination with one fault."""

    def __init__(self, inner: Target, fault: str) -> None:
        self._inner = inner
        self._fault = fault
        self.url = inner.url
        self.capabilities = dataclasses.replace(inner.capabilities, conditional_put=fault != "check, then put")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def put(self, path: str, data: Buffer, *, if_absent: bool = False, write_once: bool = False) -> ObjectInfo:
        absent = if_absent and self._fault != "replaces"
        info = await self._inner.put(path, data, if_absent=absent, write_once=write_once)
        skew = {"a minute off": 60, "an hour off": 3600}.get(self._fault, 0)
        return dataclasses.replace(info, modified_us=info.modified_us + skew * 1_000_000)

    async def get(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        data = await self._inner.get(path, start, length)
        return data[::-1] if self._fault == "lies" else data

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        async for info in self._inner.list(prefix):
            if self._fault != "lists late" or prefix.endswith("/"):
                yield info

    async def create(self, path: str, *, write_once: bool = False) -> Writer:
        if self._fault == "no large files":
            raise TargetError("can not begin a file in parts", hint="give the key more rights")
        return await self._inner.create(path, write_once=write_once)

    async def leftovers(self, prefix: str) -> AsyncIterator[Leftover]:
        if self._fault == "keeps what was aborted":
            yield Leftover(prefix, "id", "multipart upload", 0)
        async for left in self._inner.leftovers(prefix):
            yield left


async def examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str = "") -> tuple[Examination, list[Check]]:
    async def opened(_url: str, **_options: Any) -> Target:
        inner = FileTarget(str(tmp_path), tmp_path.as_uri())
        await inner.open()
        return Bad(inner, fault)

    told: list[Check] = []
    if fault:
        monkeypatch.setattr(doctor, "open_target", opened)
    found = await examine(Settings(dest=tmp_path.as_uri()), seconds=0.1, on_check=told.append)
    assert list(found.checks) == told
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    return found, told


async def test_a_good_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, checks = await examined(tmp_path, monkeypatch)
    assert found.ok and {check.state for check in checks} == {State.OK}, checks
    names = ["reach", "room", "mount", "write", "list", "exclusive", "large", "unfinished", "delete", "throughput"]
    assert [check.name for check in checks] == names


@pytest.mark.parametrize(
    ("fault", "name", "state"),
    [
        ("lies", "write", State.FAIL),
        ("a minute off", "write", State.WARN),
        ("an hour off", "write", State.FAIL),
        ("lists late", "list", State.FAIL),
        ("replaces", "exclusive", State.FAIL),
        ("check, then put", "exclusive", State.WARN),
        ("no large files", "large", State.FAIL),
        ("keeps what was aborted", "unfinished", State.WARN),
    ],
)
async def test_a_bad_one_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, name: str, state: State
) -> None:
    found, checks = await examined(tmp_path, monkeypatch, fault)
    [check] = [check for check in checks if check.name == name]
    assert check.state == state and check.advice
    assert found.ok == (state != State.FAIL)


async def test_a_destination_and_a_source_that_are_not_there(tmp_path: Path) -> None:
    settings = Settings(dest=(tmp_path / "none").as_uri(), source=f"seekdb://{tmp_path}")
    found = await examine(settings, on_check=lambda _check: None)
    assert [(check.subject, check.state) for check in found.checks] == [
        ("source", State.FAIL),
        ("destination", State.FAIL),
    ]
    assert all(check.advice for check in found.checks if check.state == State.FAIL)
    only_dest = await examine(Settings(dest=(tmp_path / "none").as_uri()), on_check=lambda _check: None)
    assert [(check.name, check.state) for check in only_dest.checks] == [("reach", State.FAIL)]


class Log:
    def __init__(self, begin: int, end: int) -> None:
        self._begin, self._end = begin, end

    async def begin_lsn(self) -> int:
        return self._begin

    async def end(self) -> tuple[int, int]:
        return self._end, 0


@pytest.mark.parametrize(
    ("checkpoint", "state", "words"),
    [(900, State.OK, "behind, of"), (300, State.WARN, "behind, of"), (50, State.FAIL, "from LSN 50 to 100 is gone")],
)
async def test_the_archive_against_what_the_engine_keeps(checkpoint: int, state: State, words: str) -> None:
    exam = SourceExam(cast("Any", None), Settings())
    check = await exam.retention(cast("Any", Log(100, 1000)), checkpoint)
    assert (check.state, words in check.detail) == (state, True)
    assert bool(check.advice) == (state != State.OK)


async def test_how_long_the_log_that_is_kept_lasts() -> None:
    exam = SourceExam(cast("Any", None), Settings())
    exam._end = (0, time.monotonic() - 10)
    check = await exam.retention(cast("Any", Log(0, 60_000_000)), 59_000_000)
    assert "0 min at the present 6.0 MB/s" in check.detail


@pytest.mark.parametrize("kind", ["missing", "good"])
def test_the_scratch_directory(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "scratch"
    if kind != "missing":
        directory.mkdir()
    check = doctor_source._scratch(directory)
    assert check.state == (State.OK if kind == "good" else State.FAIL)
    assert ("--scratch-dir" in (check.advice or "")) == (kind != "good")


def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    """What is not there can not be read either, and is named."""
    store = SeekdbStore(StorePaths.of_base(tmp_path), None)
    for directory in (store.paths.slog_sys, store.paths.palf_meta, store.paths.palf_log, store.paths.block_file.parent):
        directory.mkdir(parents=True, exist_ok=True)
    store.paths.block_file.write_bytes(b"block")
    check = doctor_source._files(store)
    assert check is not None and check.state == State.OK, check
    store.paths.block_file.unlink()
    gone = doctor_source._files(store)
    assert gone is not None and gone.state == State.FAIL and "block_file" in gone.detail
