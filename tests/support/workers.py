"""Which tests run in one worker of pytest-xdist, one after the other."""

from __future__ import annotations

import re
from typing import Any

from xdist.scheduler import LoadScopeScheduling


class Engines(LoadScopeScheduling):
    """A module goes to one worker; end to end it is the site, with its engine and the story told on it, that does."""

    def __init__(self, config: Any, log: Any) -> None:
        config.option.loadscopereorder = False  # what is collected first takes longest and begins first
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        module, _, test = nodeid.partition("::")
        site = re.search(r"\[(file|s3)\b", test)
        return f"e2e {site[1]}" if site and "/e2e/" in module else module
