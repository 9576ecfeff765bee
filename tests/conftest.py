"""Shared by all tests: tests/support holds helpers that are imported by name."""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "support"))

# No deadline, and no complaint about slow examples: how long they take says more about the machine's load.
# The suite tries the same examples every time, so that a red run is about the change; `make fuzz` looks for new ones.
calm = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("mover", derandomize=True, **calm)
settings.register_profile("fuzz", max_examples=1000, **calm)
settings.load_profile(os.environ.get("MOVER_HYPOTHESIS", "mover"))
