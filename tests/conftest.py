"""Shared by all tests: tests/support holds helpers that are imported by name."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "support"))

# No deadline: how long one example takes says more about the machine's load than about the code.
settings.register_profile("mover", deadline=None, print_blob=True)
settings.load_profile("mover")
