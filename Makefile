# Everything is built into .venv at the project root. `make demo` and `make test` are all a newcomer needs.
#
#   make demo    the whole story on a real engine: archive, back up, restore to a moment, boot, compare
#   make test    all tests, WORKERS (3) at a time, and the kernel's once more without the native extension
#   make lint    ruff and mypy
#   make soak    the long sweeps
#   make chaos   whole jobs on destinations that fail, CHAOS_SEEDS (200) seeds of it; a coordinator paused before any call
#   make fuzz    the property tests with new examples every time, many of them
#   make bench   throughput beside other tools, into bench/RESULTS.md (20 minutes; `make bench-peers` first)
#   make build   the environment and the extension only
#   make clean   removes what was built; .venv too
#
# PYTHON=python3.12 picks an interpreter (3.11 or newer). MOVER_PURE=1 builds without the extension, MOVER_DEBUG=1 with
# line tracing and bounds checks.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PYTEST := $(BIN)/python -m pytest
NATIVE_SOURCES := setup.py $(wildcard _native/*.pyx _native/*.pxd _native/*.h _native/xxh3_avx2.c)

.DELETE_ON_ERROR:
.PHONY: demo test lint soak chaos bench bench-peers bench-sink build clean fuzz

demo: build
	$(BIN)/python -m mover demo

# Most of the time engines boot, sweep and compact: three workers keep two processors busy. What measures comes first and
# alone, the great run last, so that its summary is the last that is said.
WORKERS ?= 3

test: build $(STAMPS)/servers
	@date +%s > $(STAMPS)/began
	$(PYTEST) -q -m alone
	MOVER_PURE=1 $(PYTEST) -q -n $(WORKERS) tests/kernel tests/media
	TESTS_BEGAN=$$(cat $(STAMPS)/began) $(PYTEST) -n $(WORKERS) -m "not soak and not alone"

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: build $(STAMPS)/servers
	$(PYTEST) -m soak

chaos: build $(STAMPS)/servers
	CHAOS_SEEDS=$${CHAOS_SEEDS:-200} CHAOS_EVERY=$${CHAOS_EVERY:-1} CHAOS_KILLS=$${CHAOS_KILLS:-50} $(PYTEST) --timeout 0 tests/chaos

fuzz: build
	MOVER_HYPOTHESIS=fuzz $(PYTEST) --timeout 0 tests/kernel tests/media tests/format tests/datapath tests/repository tests/recovery

# Goes on where an interrupted run ended; writes bench/RESULTS.md. See bench/run.py for BENCH_SUITES and the others.
bench: build bench-sink
	$(BIN)/python bench/run.py

# What mover is compared with, in an environment of its own; what can not be had here is named and left out. The plot is
# drawn by mover itself.
bench-peers: build
	PYTHON="$(PYTHON)" bench/install-peers .venv-peers
	$(BIN)/python -m pip install --quiet "matplotlib>=3.8"

bench-sink: build/bench/s3-sink

build/bench/s3-sink: bench/sink.c
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -std=gnu11 -pthread -o $@ $< -lm

build: $(STAMPS)/installed

# A wheel build needs the headers; the engine needs nothing more. Only what is missing is installed.
$(STAMPS)/system:
	PYTHON="$(PYTHON)" tools/system-packages
	@mkdir -p $(STAMPS)
	@touch $@

# Servers that the tests start for themselves; nothing of them runs otherwise.
$(STAMPS)/servers: $(STAMPS)/system tools/system-packages
	PYTHON="$(PYTHON)" tools/system-packages tests
	@touch $@

$(STAMPS)/venv: $(STAMPS)/system
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/installed: $(STAMPS)/venv pyproject.toml $(NATIVE_SOURCES)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[demo]' --group test --group lint
	@touch $@

clean:
	rm -rf $(VENV) .venv-peers build dist mover.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f mover/_native/*.so
