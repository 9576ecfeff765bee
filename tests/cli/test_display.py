"""Meters, lines and texts: what a person sees of a running job."""

import io
import json

import pytest
from rich.console import Console

from mover.cli.meter import Meter, Rate
from mover.cli.progress import Display, JsonLines, Lines, Live, event_as_json
from mover.cli.units import bytes_text, printable, ratio_text, span_text
from mover.config_secret import redact
from mover.events import ArchiveProgress, Notice, Phase, Progress


class Time:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Time()


@pytest.fixture
def lines(clock):
    stream = io.StringIO()
    return Lines(10.0, redact, stream=stream, meter=Meter(clock)), stream


def backup(blocks=0, bytes_in=0, **more):
    return Progress("backup", 1, blocks_done=blocks, blocks_total=100, bytes_in=bytes_in, **more)


def test_one_line_per_interval_not_per_event(lines, clock):
    display, stream = lines
    display.emit(Phase("backup", "bulk"))
    for n in range(50):
        clock.now += 0.1
        display.emit(backup(n, n << 20, bytes_out=n << 19, blocks_reused=3))
    assert stream.getvalue() == ""
    display.tick()
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("backup tenant 1 (bulk): 49/100 blocks, 3 reused, 49 MiB in, 24.5 MiB out (0.50), 10 MiB/s")
    assert line.endswith("eta 5.1 s")


def test_a_stall_is_seen(lines, clock):
    """No event for an interval still gives a line, and the rate falls."""
    display, stream = lines
    display.emit(backup(1, 1 << 20))
    display.tick()
    display.tick()
    assert len(stream.getvalue().splitlines()) == 2


def test_a_job_that_ended_is_not_told_again(lines, clock):
    display, stream = lines
    display.emit(backup(100))
    display.tick()
    display.emit(Progress("validate", 1, blocks_done=1))
    display.tick()
    assert "validate" in stream.getvalue().splitlines()[-1]
    assert len(stream.getvalue().splitlines()) == 2


def test_the_last_state_is_told_at_the_end_once(lines):
    display, stream = lines
    with display:
        display.emit(backup(7))
    assert len(stream.getvalue().splitlines()) == 1
    with display:
        pass
    assert len(stream.getvalue().splitlines()) == 1


def test_phase_without_counters_gives_a_sign_of_life(lines):
    display, stream = lines
    display.emit(Phase("backup", "wait-archive", "until LSN 5"))
    display.tick()
    assert stream.getvalue() == "backup: wait-archive until LSN 5\n"


def test_notices_come_at_once_without_secrets_and_control_characters(lines):
    display, stream = lines
    display.emit(Notice("backup", "lost s3://b?access_key=HIDDEN \x1b[31m", "look"))
    assert stream.getvalue() == "note: lost s3://b?access_key=*** \\x1b[31m (look)\n"


def test_archive_line_has_lag(lines):
    display, stream = lines
    display.emit(ArchiveProgress(1, 3, 1795343400_000000000, 77, 10, 5, 2048, 0.42))
    display.tick()
    assert "round 3" in stream.getvalue()
    assert "lag 0.42 s" in stream.getvalue()
    assert "(lsn 77)" in stream.getvalue()
    assert "2.00 KiB pending" in stream.getvalue()


def test_quiet_shows_nothing(capsys):
    with Display() as display:
        display.emit(backup(1))
        display.tick()
    assert capsys.readouterr() == ("", "")


def test_live_bars_show_counters_and_leave_the_terminal_as_it_was():
    """A phase before there is a bar, the bar, a notice above it; the cursor is back at the end."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=160, markup=False, highlight=False, color_system=None)
    with Live(redact, console) as display:
        display.emit(Phase("backup", "wait", "for [the] sweep"))
        display.tick()
        assert len(display._bars.tasks) == 1
        display.emit(backup(30, 30 << 20))
        display.emit(ArchiveProgress(1, 3, 10**18, 77, 10, 5, 2048, 0.42))
        display.emit(Notice("backup", "[b]ig access_key=HIDDEN"))
        phase, bar, archive = display._bars.tasks
        assert (phase.visible, bar.completed, bar.total, archive.total) == (False, 30, 100, None)
        assert archive.fields["text"].startswith("round 3, lag 0.42 s, 2.00 KiB pending")
    text = stream.getvalue()
    assert "note: [b]ig access_key=***" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_json_lines_keep_only_the_latest_progress(capsys):
    with JsonLines(1.0, redact) as display:
        for lsn in (1, 2, 3):
            display.emit(ArchiveProgress(1, 1, 10**9, lsn, 0, 0, 0, 0.0))
        display.emit(Phase("archive", "run"))
    out, err = capsys.readouterr()
    entries = [json.loads(line) for line in out.splitlines()]
    assert [entry["type"] for entry in entries] == ["phase", "archive_progress"]
    assert entries[1]["checkpoint_lsn"] == 3
    assert err == ""


def test_every_event_has_a_type_and_a_time():
    for event in (Phase("a", "b"), backup(), ArchiveProgress(1, 1, 0, 0, 0, 0, 0, 0.0), Notice("a", "b")):
        entry = event_as_json(event)
        assert entry["type"]
        assert entry["time"]
        json.dumps(entry)


def test_rate_of_a_new_job_forgets_the_old():
    rate = Rate()
    rate.add(0, 1000)
    rate.add(1, 2000)
    assert rate.per_second(1) == 1000
    rate.add(2, 0)
    assert rate.per_second(2) == 0
    rate.add(3, 50)
    assert rate.per_second(3) == 50


def test_rate_falls_while_nothing_comes():
    rate = Rate()
    rate.add(0, 0)
    rate.add(1, 100)
    assert rate.per_second(10) == 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bytes_text(0), "0 B"),
        (bytes_text(1023), "1023 B"),
        (bytes_text(1536), "1.50 KiB"),
        (bytes_text(10 << 20), "10 MiB"),
        (bytes_text(1023 << 10), "1.00 MiB"),
        (bytes_text(5 << 50), "5.00 PiB"),
        (span_text(0.4), "0.40 s"),
        (span_text(59.94), "59.9 s"),
        (span_text(61), "1:01"),
        (span_text(7322), "2:02:02"),
        (ratio_text(0, 5), "-"),
        (ratio_text(4, 1), "0.25"),
        (printable("a\x1b]0;x\x07b\nc"), "a\\x1b]0;x\\x07b\nc"),
    ],
)
def test_texts(text, expected):
    assert expected == text
