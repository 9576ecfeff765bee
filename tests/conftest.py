"""Shared by all tests: tests/support holds helpers that are imported by name."""

import os
import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "support"))

# No deadline: how long one example takes says more about the machine's load than about the code.
# The suite tries the same examples every time, so that a red run is about the change; `make fuzz` looks for new ones.
settings.register_profile("mover", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("fuzz", deadline=None, print_blob=True, max_examples=1000)
settings.load_profile(os.environ.get("MOVER_HYPOTHESIS", "mover"))
