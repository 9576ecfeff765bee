"""The display of a running job, on stderr: bars on a terminal, a line per interval elsewhere, or nothing.

With ``--json`` a stream command writes its events to stdout as JSON lines instead.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from mover.cli.meter import Gauge, Meter
from mover.cli.output import print_json
from mover.cli.units import printable
from mover.clock import iso_from_scn, iso_from_us
from mover.events import ArchiveProgress, Event, Notice, Phase, Progress, Scheduled

if TYPE_CHECKING:
    import rich.console
    import rich.progress

Redact = Callable[[str], str]


class Display:
    """Shows nothing. The base of the others: ``emit`` takes events, ``tick`` is called once per interval."""

    interval: float = 10.0

    def emit(self, event: Event) -> None:
        """Take one event; called on the event loop, must not block."""

    def tick(self) -> None:
        """An interval passed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take the display down; the terminal is as it was."""


class Lines(Display):
    """One line per interval and running job, for files, cron and systemd; phases are not lines of their own."""

    def __init__(
        self, interval: float, redact: Redact, *, stream: TextIO | None = None, meter: Meter | None = None
    ) -> None:
        self.interval = interval
        self._redact = redact
        self._stream = stream
        self._meter = meter or Meter()
        self._moved: set[tuple[str, int]] = set()
        self._last: list[tuple[str, int]] = []
        self._idle_phase: Phase | None = None

    def emit(self, event: Event) -> None:
        if isinstance(event, Notice | Scheduled):
            self._write(_notice(event))
            return
        if isinstance(event, Phase):
            self._idle_phase = event
        gauge = self._meter.update(event)
        if gauge is not None:
            self._moved.add((gauge.job, gauge.tenant_id))

    def tick(self) -> None:
        # When nothing moved, what moved last stands still and says so; a job that ended is not told again.
        if self._moved:
            self._last = sorted(self._moved)
        self._tell(self._last)
        if not self._meter.gauges and self._idle_phase is not None:
            self._write(f"{self._idle_phase.job}: {self._idle_phase.name} {self._idle_phase.detail}".rstrip())

    def __exit__(self, *_exception: object) -> None:
        # What the last interval missed: a short job says what it did in one line too.
        self._tell(sorted(self._moved))

    def _tell(self, keys: list[tuple[str, int]]) -> None:
        now = self._meter.monotonic()
        for key in keys:
            gauge = self._meter.gauges[key]
            self._write(f"{gauge.title}: {gauge.text(now)}")
        self._moved.clear()

    def _write(self, line: str) -> None:
        print(self._redact(printable(line)), file=self._stream or sys.stderr, flush=True)


class JsonLines(Display):
    """Every event as a line of JSON on stdout; archive progress at most once per interval."""

    def __init__(self, interval: float, redact: Redact) -> None:
        self.interval = interval
        self._redact = redact
        self._latest: dict[str, dict[str, Any]] = {}

    def emit(self, event: Event) -> None:
        entry = event_as_json(event)
        if isinstance(event, ArchiveProgress | Progress):
            self._latest[entry["type"]] = entry
        else:
            print_json(entry, self._redact)

    def tick(self) -> None:
        for entry in self._latest.values():
            print_json(entry, self._redact)
        self._latest.clear()

    def __exit__(self, *_exception: object) -> None:
        self.tick()


class Live(Display):
    """Bars that are redrawn in place."""

    interval = 0.25

    def __init__(self, redact: Redact, console: rich.console.Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        self._redact = redact
        self._meter = Meter()
        self._console = console or Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn(
                "{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
            console=self._console,
            transient=True,
            expand=True,
            # Lines on stdout go above the bars when both are one terminal, and untouched into a file.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._tasks: dict[tuple[str, int], rich.progress.TaskID] = {}
        self._phase_task: rich.progress.TaskID | None = None

    def emit(self, event: Event) -> None:
        if isinstance(event, Notice | Scheduled):
            self._console.print(self._redact(printable(_notice(event))))
            return
        gauge = self._meter.update(event)
        if isinstance(event, Phase):
            self._show_phase(event)
        elif gauge is not None:
            self._show(gauge)

    def tick(self) -> None:
        for gauge in self._meter.gauges.values():
            self._show(gauge)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._bars.stop()

    def _show_phase(self, event: Phase) -> None:
        """A job that counts nothing yet still shows what it does."""
        text = self._redact(printable(event.detail))
        if self._phase_task is None:
            self._phase_task = self._bars.add_task("", total=None, text=text)
        has_bar = any(gauge.job == event.job for gauge in self._meter.gauges.values())
        self._bars.update(self._phase_task, description=f"{event.job}: {event.name}", text=text, visible=not has_bar)

    def _show(self, gauge: Gauge) -> None:
        key = (gauge.job, gauge.tenant_id)
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(gauge.title, total=None, text="")
            if self._phase_task is not None:
                self._bars.update(self._phase_task, visible=False)
        done, total = gauge.work()
        self._bars.update(
            self._tasks[key],
            description=gauge.title,
            completed=done,
            total=total or None,
            text=gauge.text(self._meter.monotonic()),
        )


def event_as_json(event: Event) -> dict[str, Any]:
    """The event as an object: ``type``, its fields, and readable times beside SCNs."""
    names = {Phase: "phase", Progress: "progress", ArchiveProgress: "archive_progress", Notice: "notice"}
    names[Scheduled] = "scheduled"
    entry: dict[str, Any] = {"type": names[type(event)], **dataclasses.asdict(event)}
    if isinstance(event, Scheduled):
        entry["at"] = iso_from_us(event.at_us)
    if isinstance(event, ArchiveProgress) and event.checkpoint_scn:
        entry["checkpoint_time"] = iso_from_scn(event.checkpoint_scn)
    return entry | {"time": iso_from_us(_now_us())}


def _now_us() -> int:
    from mover.clock import SystemClock

    return SystemClock().now_us()


def _notice(event: Notice | Scheduled) -> str:
    if isinstance(event, Scheduled):
        return f"next: {event.work} backup at {iso_from_us(event.at_us)}"
    return f"note: {event.message}" + (f" ({event.hint})" if event.hint else "")
