"""What only a process shows: start-up time, signals, a closed pipe, and the two ways to start it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

MOVER = [sys.executable, "-m", "mover"]

# A job that says it is there, then waits for its stop event or, not graceful, for ever.
_JOB = """
    import asyncio, sys
    from mover.cli import app, runner, progress
    from mover.cli.command import Command
    from mover.errors import Cancelled
    import click

    @click.command("wait", cls=Command)
    @click.option("--how")
    def wait(how):
        async def body(control):
            print("ready", flush=True)
            if how == "cancelled":
                await asyncio.Event().wait()
            with control.graceful() as stop:
                await stop.wait()
                if how == "stubborn":
                    print("stopping", flush=True)
                    await asyncio.Event().wait()
                if how == "raises":
                    raise Cancelled("stopped half way", hint="Nothing is lost.")
            return "clean"

        outcome = runner.run_job(body, progress.Display())
        print(outcome.value)
        return outcome.status(0)

    app.mover.add_command(wait)
    sys.exit(app.run(sys.argv[1:]))
"""


@pytest.fixture
def job(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(_JOB))

    def start(how):
        process = subprocess.Popen(
            [sys.executable, str(script), "wait", "--how", how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        return process

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("how", "out", "err"),
    [
        ("returns", "clean\n", ""),
        ("raises", "", "error: stopped half way\nhint: Nothing is lost.\n"),
        ("cancelled", "", ""),
    ],
)
def test_a_signal_stops_cleanly(job, number, how, out, err):
    """128 + the signal, after the job ended itself or was cancelled."""
    process = job(how)
    process.send_signal(number)
    assert process.communicate(timeout=30) == (out, err)
    assert process.returncode == 128 + number


def test_the_second_signal_ends_it_at_once(job):
    process = job("stubborn")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_module_and_script_are_one_program():
    script = os.path.join(os.path.dirname(sys.executable), "mover")
    by_module = subprocess.run([*MOVER, "--help"], capture_output=True, text=True, check=True)
    by_script = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert by_module.stdout == by_script.stdout


def test_a_closed_pipe_is_no_traceback():
    process = subprocess.Popen([*MOVER, "config", "show"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 141


@pytest.mark.parametrize(
    ("arguments", "slow"),
    [
        (["--version"], {"rich", "asyncio", "uvloop", "sqlalchemy", "botocore", "asyncmy", "tomllib", "mover.kernel"}),
        (["show", "sets", "--json"], {"rich", "sqlalchemy", "aiosqlite", "botocore", "asyncmy", "mover.store.seekdb"}),
    ],
)
def test_nothing_slow_is_imported_that_is_not_needed(tmp_path, arguments, slow):
    """Counted, not timed: the modules that cost, by name."""
    code = f"import sys; from mover.cli import app; app.run({arguments}); print(sorted(sys.modules))"
    environment = {**os.environ, "MOVER_DEST": tmp_path.as_uri()}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert not slow & set(eval(ran.stdout.splitlines()[1]))


@pytest.mark.alone
@pytest.mark.parametrize(("arguments", "seconds"), [(["--version"], 0.25), (["show", "sets"], 0.6)])
def test_starting_takes_little_processor_time(tmp_path, arguments, seconds):
    """What it may take on the wall of an idle machine; processor time is what a busy one leaves comparable."""
    environment = {**os.environ, "MOVER_DEST": tmp_path.as_uri()}
    best = 9.0
    for _ in range(3):
        process = subprocess.Popen([*MOVER, *arguments], stdout=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        best = min(best, usage.ru_utime + usage.ru_stime)
    assert best < seconds


def test_logs_as_json_lines_have_no_secret(tmp_path):
    environment = {**os.environ, "MOVER_DSET": "x", "MOVER_SOURCE_PASSWORD": "TOPSECRET1"}
    result = subprocess.run(
        [*MOVER, "--log-format", "json", "config", "show", "--dest", "s3://b?access_key=TOPSECRET2"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    entries = [json.loads(line) for line in result.stderr.splitlines()]
    assert [entry["level"] for entry in entries] == ["warning", "warning"]
    assert "TOPSECRET" not in result.stdout + result.stderr


async def test_display_ticks_while_the_job_runs():
    """The display's clock runs beside the job, and the display is taken down before the result is shown."""
    from mover.cli.progress import Display
    from mover.cli.runner import Control, _supervise

    calls = []
    ticked = asyncio.Event()

    class Recorder(Display):
        interval = 0.001

        def tick(self):
            calls.append("tick")
            ticked.set()

        def __exit__(self, *_exception):
            calls.append("down")

    async def body(control: Control):
        await ticked.wait()
        return 7

    outcome = await _supervise(body, Recorder())
    assert (outcome.value, outcome.signal, calls[-1]) == (7, None, "down")
