"""The command line: the only part of mover that prints, reads the environment or touches signals."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with the status that tells how it went (see the README)."""
    from mover.cli.app import run

    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))
