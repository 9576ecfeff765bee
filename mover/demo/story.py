"""Archive, load, full, more writes, incremental, validate, a moment, destruction, restore, boot, compare."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mover.clock import iso_from_scn
from mover.config import Settings
from mover.demo.compare import Fingerprints, books_balance, differences, fingerprints
from mover.demo.workload import Workload
from mover.errors import MoverError, PreconditionError, TargetError
from mover.events import ArchiveProgress, Emit, Event
from mover.recovery.restore import RestoreRequest, restore
from mover.recovery.validate import ValidateRequest, validate
from mover.rootservice import archive, backup
from mover.rootservice.round_views import archive_view
from mover.rootservice.session import Session, open_session
from mover.store.seekdb.server import SeekdbServer
from mover.target.url import open_target

NEEDED_BYTES = 3 << 30
_WRITES_PER_SECOND = 40
_MORE_WRITES_SECONDS = 6.0
_ARCHIVE_SECONDS = 60.0
_POLL_SECONDS = 0.1

Step = Callable[[str], None]


@dataclass
class Report:
    """What happened, as the table at the end shows it."""

    dest: str
    directory: str | None
    sets: list[dict[str, Any]] = field(default_factory=list)
    archive: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    moment: dict[str, Any] = field(default_factory=dict)
    restore: dict[str, Any] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    elapsed_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Everything that was destroyed is back, and nothing else."""
        return not self.differences and bool(self.tables)

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **dataclasses.asdict(self)}


async def tell(settings: Settings, *, directory: Path | None, step: Step, emit: Emit) -> Report:
    """Run the story.

    Args:
        settings: ``dest`` and the tuning count; the source is the demo's own engine.
        directory: empty or new; kept. None = a temporary directory that is removed, however the story ends.
        step: called with a line per step, as it is done.
        emit: events of the jobs.

    Raises:
        PreconditionError: no engine is installed, the directory is not empty, or the disk is too small.
        MoverError: a step failed. No process and no temporary file is left behind, also on cancellation.
    """
    began = time.monotonic()
    if settings.dest is not None:
        # A bucket that is not there shall be known before an engine is started for it.
        await (await open_target(settings.dest)).aclose()
    async with _workplace(directory, settings.scratch_dir) as place:
        own = dataclasses.replace(
            settings,
            source=f"seekdb://{place / 'source'}",
            dest=settings.dest or f"file://{place / 'backup'}",
            catalog=None,
            state_dir=place / "state",
            offline=False,
            source_user="root",
            source_password=None,
        )
        story = _Story(own, place, step, emit, keep=directory is not None)
        try:
            await story.run()
        except BaseExceptionGroup as group:
            raise _first(group) from group
        story.report.elapsed_seconds = time.monotonic() - began
        return story.report


class _Story:
    def __init__(self, settings: Settings, place: Path, step: Step, emit: Emit, *, keep: bool) -> None:
        self.settings = settings
        self.place = place
        self.step = step
        self.report = Report(dest=str(settings.as_dict(redacted=True)["dest"]), directory=str(place) if keep else None)
        self._listener = emit
        self._lags: list[float] = []
        self._server = SeekdbServer(place / "source")  # no port: its unix socket is nobody else's business
        self._work = Workload(self._server)

    async def run(self) -> None:
        """The story in its order; the source engine is gone before the restore begins."""
        async with AsyncExitStack() as stack:
            self.step("starting a seekdb engine")
            await stack.enter_async_context(self._server)
            self.step("the engine is up")
            expected, scn, set_id = await self._protect()
            stack.push_async_callback(self._server.kill)
        self.step("the engine is killed: from here on there is only the destination")
        await self._recover(expected, scn, set_id)

    async def _protect(self) -> tuple[Fingerprints, int, int]:
        """Load, archive, back up, note a moment and destroy; what was there, when, and the set to restore from."""
        work = self._work
        await work.create()
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(self._session())
            began = await archive.start(session)
            self.step(f"archive round {began.as_json()['round']} is started")
            end_archiving, end_writing = asyncio.Event(), asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                archiver = tasks.create_task(self._archive(end_archiving))
                rows = await work.load()
                self.step(f"{rows} rows loaded into 6 tables: zstd, zlib and none, 4 partitions, LOBs")
                await self._major_freeze()
                writer = tasks.create_task(work.write(end_writing, _WRITES_PER_SECOND))
                await self._back_up(session, incremental=False)
                await work.minor_freeze()
                self.step("minor freeze")
                await asyncio.sleep(_MORE_WRITES_SECONDS)
                await self._major_freeze()
                set_id = await self._back_up(session, incremental=True)
                await self._validate(session)
                end_writing.set()
                await writer
                scn = await work.moment()
                expected = await fingerprints(self._server)
                self.report.moment = {"scn": scn, "time": iso_from_scn(scn), "transactions": work.committed}
                self.step(f"the moment: {iso_from_scn(scn)}, SCN {scn}; {work.committed} transactions were committed")
                self.step("destruction: " + ", ".join(await work.destroy()))
                await self._archived(session, scn)
                end_archiving.set()
                await archiver
            self.report.archive = self._archive_facts((await archive.stop(session)).as_json())
            self.step("the archive has passed the moment and is stopped")
        return expected, scn, set_id

    async def _recover(self, expected: Fingerprints, scn: int, set_id: int) -> None:
        """Restore to the moment from the destination alone, boot the result and compare."""
        target = self.place / "restored"
        settings = self.settings
        began = time.monotonic()
        async with open_session(settings, need_source=False, emit=self._emit) as session:
            request = RestoreRequest(
                target=target,
                set_id=set_id,
                until_scn=scn,
                until_us=None,
                preview=False,
                memory=settings.memory,
                concurrency=settings.concurrency,
                workers=settings.workers,
            )
            result = (await restore(session.repository, request, emit=self._emit, stop=asyncio.Event())).as_json()
        took = time.monotonic() - began
        self.report.restore = {**result, "elapsed_seconds": took, "disk_bytes": _disk_bytes(target)}
        self.step(f"restored set {result['set']} and log up to SCN {result['until_scn']} in {took:.1f} s")
        began = time.monotonic()
        async with SeekdbServer(target, log_disk_size=str(result["log_disk_size"])) as restored:
            self.report.restore["boot_seconds"] = time.monotonic() - began
            self.step(f"the restored store is up after {time.monotonic() - began:.1f} s")
            found = await fingerprints(restored)
            self.report.differences = differences(expected, found)
            if "accounts" in found:
                self.report.differences += filter(None, [await books_balance(restored)])
        for table in sorted(expected):
            same = found.get(table) == expected[table]
            self.report.tables.append(
                {"table": table, "rows": expected[table].rows, "checksum": expected[table].checksum, "identical": same}
            )
        self.step("compared: " + ("every table is identical" if self.report.ok else "; ".join(self.report.differences)))

    def _session(self) -> Any:
        return open_session(self.settings, need_source=True, create=True, emit=self._emit)

    async def _archive(self, stop: asyncio.Event) -> None:
        # A session of its own, as the process of `mover archivelog run` would have.
        async with self._session() as session:
            await archive.run(session, until_caught_up=False, stop=stop)

    async def _major_freeze(self) -> None:
        done = await self._work.major_freeze()
        self.step("major freeze is done" if done else "major freeze: compaction goes on in the background")

    async def _back_up(self, session: Session, *, incremental: bool) -> int:
        before = self._work.committed
        view = await backup.run(session, incremental=incremental, plan=False, stop=asyncio.Event())
        facts = view.as_json()
        self.report.sets.append(facts)
        kind = "incremental" if incremental else "full"
        self.step(
            f"{kind} backup, set {facts['backup_set_id']}: {facts['macro_block_count']} blocks"
            f" ({facts['reused_macro_block_count']} reused) in {facts['elapsed_seconds']:.1f} s,"
            f" {self._work.committed - before} transactions meanwhile"
        )
        for warning in view.warnings:
            self.step(f"warning: {warning}")
        return int(facts["backup_set_id"])

    async def _validate(self, session: Session) -> None:
        request = ValidateRequest(
            set_id=None, archive=True, everything=True, sample=None, concurrency=self.settings.concurrency
        )
        report = await validate(session.repository, request, emit=self._emit, stop=asyncio.Event())
        facts = report.as_json()
        self.report.validation = facts
        if not report.ok:
            self.report.differences += [f"validate: {v['path']}: {v['message']}" for v in facts["violations"]]
        self.step(f"validated {facts['checked_files']} files: {'all well' if report.ok else 'VIOLATIONS'}")

    async def _archived(self, session: Session, scn: int) -> None:
        """Wait until the archive has everything up to ``scn``."""
        deadline = time.monotonic() + _ARCHIVE_SECONDS
        while time.monotonic() < deadline:
            rounds = (await archive_view(session)).as_json()["rounds"]
            if isinstance(rounds, list) and rounds and rounds[-1]["checkpoint_scn"] >= scn:
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise TargetError(
            f"the archive did not pass SCN {scn} within {_ARCHIVE_SECONDS:g} s",
            hint="The machine or the destination may be busy; run the demo again.",
        )

    def _archive_facts(self, facts: dict[str, Any]) -> dict[str, Any]:
        lags = sorted(self._lags)
        at = {f"lag_p{p}_seconds": lags[min(len(lags) - 1, len(lags) * p // 100)] for p in (50, 99)} if lags else {}
        return {**facts, **at}

    def _emit(self, event: Event) -> None:
        if isinstance(event, ArchiveProgress):
            self._lags.append(event.lag_seconds)
        self._listener(event)


@asynccontextmanager
async def _workplace(directory: Path | None, scratch: Path | None) -> AsyncIterator[Path]:
    if directory is not None:
        place = directory.absolute()
        if place.is_dir() and any(place.iterdir()):
            raise PreconditionError(
                f"directory {place} is not empty", hint="Name an empty or a new one.", path=str(place)
            )
        place.mkdir(parents=True, exist_ok=True)
        _require_room(place)
        yield place
        return
    place = Path(tempfile.mkdtemp(prefix="mover-demo-", dir=scratch))
    try:
        _require_room(place)
        yield place
    finally:
        # In this thread: a cancelled story must not leave gigabytes because its last await was cancelled too.
        shutil.rmtree(place, ignore_errors=True)


def _require_room(place: Path) -> None:
    free = shutil.disk_usage(place).free
    if free < NEEDED_BYTES:
        raise PreconditionError(
            f"only {free >> 20} MiB are free at {place}, and the demo needs {NEEDED_BYTES >> 20}",
            hint="Name a directory on a larger disk with --dir.",
        )


def _disk_bytes(directory: Path) -> int:
    """Space that the files really take: a restored store is sparse."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the tasks, one of ours before any other; the rest are its echo."""
    ours = group.subgroup(MoverError)
    error: BaseException = ours if ours is not None else group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
