"""Shared by all tests: tests/support holds helpers that are imported by name."""

import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "support"))

# No deadline, and no complaint about slow examples: how long they take says more about the machine's load.
# The suite tries the same examples every time, so that a red run is about the change; `make fuzz` looks for new ones.
calm = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("mover", derandomize=True, **calm)
settings.register_profile("fuzz", max_examples=1000, **calm)
settings.load_profile(os.environ.get("MOVER_HYPOTHESIS", "mover"))


@pytest.fixture(scope="session")
def mariadb():
    from mariadb import mariadb_server

    with mariadb_server() as server:
        yield server


@pytest.fixture(scope="session")
def weed(tmp_path_factory):
    """A SeaweedFS server, started by the first test that needs it."""
    from weed import weed_server

    with weed_server(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(scope="session")
def juicefs(tmp_path_factory):
    from gateways import JuiceFS, gateway

    with gateway(JuiceFS, tmp_path_factory.mktemp("juicefs")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory):
    from gateways import Rclone, gateway

    with gateway(Rclone, tmp_path_factory.mktemp("rclone")) as server:
        yield server


def pytest_collection_modifyitems(items):
    """What waits for engines first: it takes longest, and the other workers do everything else meanwhile."""
    here = Path(__file__).parent
    items.sort(key=lambda item: not (here / "e2e" in item.path.parents or item.path.name == "test_seekdb_engine.py"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from workers import Engines

    return Engines(config, log)


def pytest_terminal_summary(terminalreporter):
    """`make test` runs pytest more than once; the last run says how long all of it took."""
    began = os.environ.get("TESTS_BEGAN")
    if began and not hasattr(terminalreporter.config, "workerinput"):
        minutes, seconds = divmod(int(time.time()) - int(began), 60)
        terminalreporter.write_line(f"all tests took {minutes}:{seconds:02} minutes")
