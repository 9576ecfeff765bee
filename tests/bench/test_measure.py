"""Measuring processes: the CPU seconds and the memory of a whole tree, pipes, reports, and what goes wrong."""

import json
import os
import sys
import time

import pytest

from mover.bench.measure import Stage, run_pipe
from mover.errors import MoverError

BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"


def python(code, *arguments):
    return Stage([sys.executable, "-S", "-E", "-c", code, *arguments])


def test_the_cpu_of_children_counts():
    """A stage that only waits for a child which works."""
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', {BURN!r}], check=True)"
    got = run_pipe([python(child)], bytes_in=1000)
    assert 0.3 <= got.cpu_seconds < 3
    assert got.seconds >= 0.3
    assert got.bytes_in == 1000


def test_every_stage_of_a_pipe_counts(tmp_path):
    to = tmp_path / "out"
    burn_and_write = BURN + "import sys; sys.stdout.write('x' * 200000)"
    read_and_burn = "import sys; n = len(sys.stdin.read())\n" + BURN + "open(sys.argv[1], 'w').write(str(n))"
    got = run_pipe([python(burn_and_write), python(read_and_burn, str(to))], bytes_in=200_000)
    assert to.read_text() == "200000"
    assert got.cpu_seconds >= 0.6


def test_memory_is_the_process_own_not_ours():
    """What the measuring process had at its fork is not the child's; what the child takes is seen."""
    ballast = bytearray(os.urandom(1 << 20) * 200)
    idle = run_pipe([python("import time; time.sleep(0.15)")], bytes_in=1)
    taking = run_pipe([python("import time; x = b'x' * (100 << 20); time.sleep(0.15)")], bytes_in=1)
    assert len(ballast) == 200 << 20
    assert 0 < idle.rss_bytes < 50 << 20
    assert 100 << 20 <= taking.rss_bytes < 150 << 20


def test_a_report_says_when_the_work_began(tmp_path):
    report = tmp_path / "report"
    code = BURN + (
        "import json, sys, time\nfacts = {'bytes_in': 7, 'bytes_out': 5, 'ready_at': time.monotonic(),"
        "'ready_cpu_seconds': time.process_time()}\nopen(sys.argv[1], 'w').write(json.dumps(facts))"
    )
    got = run_pipe([python(code, str(report))], bytes_in=1, report=report)
    assert (got.bytes_in, got.bytes_out) == (7, 5)
    assert 0.3 <= got.start_cpu_seconds <= got.cpu_seconds
    assert 0.3 <= got.start_seconds <= got.seconds
    assert got.rate(steady=True) > got.rate(steady=False)
    assert json.loads(report.read_text())["bytes_in"] == 7


def test_a_stage_that_fails_is_an_error_with_its_last_words():
    with pytest.raises(MoverError, match=r"ended with status 3: out of luck"):
        run_pipe([python("import sys; sys.stderr.write('out of luck'); sys.exit(3)")], bytes_in=1)
    with pytest.raises(MoverError, match=r"can not run /nonexistent"):
        run_pipe([python("import time; time.sleep(60)"), Stage(["/nonexistent"])], bytes_in=1)


def test_a_failure_in_the_middle_ends_the_pipe():
    with pytest.raises(MoverError, match="status 1"):
        run_pipe([python("import time; time.sleep(0.1)"), python("raise SystemExit(1)")], bytes_in=1)


def test_a_stage_that_hangs_is_killed_with_what_it_started(tmp_path):
    noted = tmp_path / "child"
    code = (
        "import subprocess, sys\nchild = subprocess.Popen(['sleep', '600'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\nchild.wait()"
    )
    begun = time.monotonic()
    with pytest.raises(MoverError, match="took more than"):
        run_pipe([python(code, str(noted))], bytes_in=1, timeout=1.5)
    assert time.monotonic() - begun < 30
    child = int(noted.read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
            with open(f"/proc/{child}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    break
        except (ProcessLookupError, FileNotFoundError):
            break
    else:
        pytest.fail("the child of the stage is still there")


def test_settings_of_mover_are_not_for_peers(monkeypatch, tmp_path):
    monkeypatch.setenv("MOVER_SOURCE_PASSWORD", "TOPSECRET")
    monkeypatch.setenv("MOVER_PURE", "1")
    code = "import os, sys; open(sys.argv[1], 'w').write(' '.join(n for n in os.environ if n.startswith('MOVER_')))"
    run_pipe([Stage([sys.executable, "-c", code, str(tmp_path / "names")])], bytes_in=1)
    assert (tmp_path / "names").read_text() == "MOVER_PURE"


def test_secrets_are_passed_and_not_shown(tmp_path):
    stage = Stage(
        [sys.executable, "-c", "import os, sys; open(sys.argv[1], 'w').write(os.environ['KEY'])", str(tmp_path / "k")],
        {},
        {"KEY": "TOPSECRET"},
    )
    run_pipe([stage], bytes_in=1)
    assert (tmp_path / "k").read_text() == "TOPSECRET"
    assert "TOPSECRET" not in repr(stage)
