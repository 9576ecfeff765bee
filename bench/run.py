"""The default set of measurements: ``python bench/run.py``, as ``make bench`` calls it; about 20 minutes.

Each step is one ``mover bench`` with a report of its own in build/bench/results. A run that was interrupted goes on
behind its last finished step; the next one after a finished run begins anew. At the end bench/RESULTS.md, the plot
beside it and the table in README.md are written from all reports there are.

Environment: BENCH_SUITES="pipeline archive" takes only steps whose names begin so; BENCH_SIZE, BENCH_PAIRS,
BENCH_SECONDS (of an archive run), BENCH_DIR (a disk to measure), BENCH_PROFILE (of the sink's URL), BENCH_KEEP=1 (do
not write RESULTS.md and README.md).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from collect import write_documents

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "bench"
RESULTS = BUILD / "results"
DONE = RESULTS / "unfinished"  # names of finished steps of a run that is not
# Keys that the sink does not look at, and no configuration of whoever runs this.
KEYS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


class Step(NamedTuple):
    name: str
    place: str  # "", "file", "sink" or "server"
    arguments: tuple[str, ...]


def steps(size: int, pairs: int, seconds: str) -> list[Step]:
    """All measurements. Sizes are such that the whole takes about 20 minutes at 1 GiB and 5 pairs."""
    whole, half, quarter = (f"{size // part >> 20}MiB" for part in (1, 2, 4))
    double = f"{2 * size >> 20}MiB"
    many, few = ("--pairs", str(pairs)), ("--pairs", str(min(pairs, 3)))
    at_once = ("--concurrency", "8")
    kinds = ("--kind", "engine", "--kind", "rows")
    weed = ("--called", "SeaweedFS")
    return [
        Step("start", "", ("start", *many)),
        Step("kernel", "", ("kernel", *many, "--seconds", "0.3")),
        # Twice the size, as a restore: less of the start of a process in what a GB costs.
        Step("pipeline-sink", "sink", ("pipeline", *many, "--size", double, *kinds, *at_once)),
        Step("pipeline-seekdb", "sink", ("pipeline", *many, "--size", half, "--kind", "seekdb", *at_once)),
        Step("pipeline-file", "file", ("pipeline", *many, "--size", whole, *kinds)),
        Step("target-sink", "sink", ("target", *many, "--size", whole, *at_once)),
        Step("target-file", "file", ("target", *many, "--size", whole)),
        Step("restore", "file", ("restore", *many, "--size", double)),
        Step("archive", "file", ("archive", *few, "--seconds", seconds)),
        Step("peers-sink", "sink", ("peers", *many, "--size", half, *at_once)),
        Step("peers-file", "file", ("peers", *many, "--size", half)),
        Step("server-target", "server", ("target", *few, "--size", quarter, *at_once, *weed)),
        Step("server-restore", "server", ("restore", *few, "--size", quarter, *weed)),
        Step("server-pipeline", "server", ("pipeline", *few, "--size", quarter, "--kind", "engine", *at_once, *weed)),
    ]


@contextmanager
def sink(facts: Path) -> Iterator[str]:
    """The discarding sink; what it took and what that cost it is written to ``facts`` at its end."""
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen([BUILD / "s3-sink"], stdout=subprocess.PIPE, stderr=words, text=True)
        try:
            assert process.stdout is not None
            yield "http://" + process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait()
            words.seek(0)
            if said := words.read().strip():
                facts.parent.mkdir(exist_ok=True)
                facts.write_text(said + "\n")


@contextmanager
def server() -> Iterator[tuple[str, dict[str, str]]]:
    """A SeaweedFS with an empty bucket: its URL and keys."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from weed import weed_server

    with tempfile.TemporaryDirectory(prefix="mover-bench-weed-") as directory, weed_server(Path(directory)) as weed:
        yield weed.url("run", profile="seaweedfs"), weed.environment


def run(step: Step, directory: Path, profile: str) -> None:
    """One step; a failure ends the program."""
    with ExitStack() as stack:
        url, keys = None, KEYS
        if step.place == "file":
            url = f"file://{directory}"
        elif step.place == "sink":
            url = f"s3://bench/run?endpoint={stack.enter_context(sink(RESULTS / step.name / 'sink.txt'))}&{profile}"
        elif step.place == "server":
            url, keys = stack.enter_context(server())
        environment = {name: text for name, text in os.environ.items() if not name.startswith("MOVER_")}
        environment |= {"MOVER_CONFIG": os.devnull, **keys, **({"MOVER_DEST": url} if url else {})}
        out = RESULTS / step.name
        argv = [sys.executable, "-m", "mover", "bench", *step.arguments, "--out", str(out)]
        peers = ROOT / ".venv-peers"
        argv += ["--peers", str(peers)] if peers.is_dir() else []
        done = subprocess.run(argv, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {step.name} ended with status {done.returncode}; run it again to go on from here")


def main() -> None:
    size = parse_size(os.environ.get("BENCH_SIZE") or "1GiB")
    pairs = int(os.environ.get("BENCH_PAIRS") or 5)
    directory = Path(os.environ.get("BENCH_DIR") or BUILD / "destination").absolute()
    profile = os.environ.get("BENCH_PROFILE") or "profile=aws&addressing=path&region=us-east-1"
    wanted = (os.environ.get("BENCH_SUITES") or "").split()
    chosen = [
        step
        for step in steps(size, pairs, os.environ.get("BENCH_SECONDS") or "8")
        if not wanted or step.name.startswith(tuple(wanted))
    ]
    if not chosen:
        raise SystemExit(f"bench: no step begins with {' or '.join(wanted)}")
    for path in (directory, RESULTS):
        path.mkdir(parents=True, exist_ok=True)
    done = json.loads(DONE.read_text()) if DONE.exists() else []
    for step in chosen:
        if step.name in done:
            print(f"bench: {step.name} is done already", file=sys.stderr)
            continue
        began = time.monotonic()
        run(step, directory, profile)
        print(f"bench: {step.name} took {time.monotonic() - began:.0f} s", file=sys.stderr)
        done.append(step.name)
        DONE.write_text(json.dumps(done))
    DONE.unlink(missing_ok=True)
    if not os.environ.get("BENCH_KEEP"):
        write_documents(RESULTS, ROOT)
        print("bench: wrote bench/RESULTS.md, bench/results.png and the table of README.md", file=sys.stderr)


def parse_size(text: str) -> int:
    """Bytes of ``1GiB`` or ``512MiB``; at least 8 MiB, so that a quarter is a block."""
    from mover.config_values import parse_size as parse

    return max(8 << 20, parse(text))


if __name__ == "__main__":
    main()
