"""Shared by all tests: tests/support holds helpers that are imported by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
