"""The two places of a copy, open together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from mover.config import Settings
from mover.errors import ConfigError
from mover.rootservice.state import join_pace
from mover.target.base import Capabilities, ObjectInfo, Target
from mover.target.pacing import PacedTarget
from mover.target.url import FileDestination, open_target, parse_url


class Nowhere:
    """A directory that a copy would make: what a plan needs to know of it."""

    capabilities = Capabilities(append=True, conditional_put=True, device_type="FILE")

    def __init__(self, url: str) -> None:
        self.url = url

    async def list(self, _prefix: str) -> AsyncIterator[ObjectInfo]:
        """Nothing is there."""
        found: tuple[ObjectInfo, ...] = ()
        for info in found:
            yield info


@asynccontextmanager
async def open_pair(settings: Settings, source: str, *, plan: bool) -> AsyncIterator[tuple[Target, Target]]:
    """Source and destination (``settings.dest``) of a copy; the limits of the settings hold at the destination.

    Args:
        plan: nothing is written, so nothing is made either.

    Raises ConfigError when one is inside the other, or a URL cannot be used; UnreachableError for what does not answer.
    """
    if settings.dest is None:
        raise ConfigError("no destination was given", hint="name it behind the source")
    _refuse_nested(source, settings.dest)
    async with AsyncExitStack() as stack:
        limits: dict[str, Any] = {"concurrency": settings.concurrency, "retry_for": settings.retry_for}
        limits["file_timeout"] = settings.file_timeout
        one = await open_target(source, create=False, **limits)
        stack.push_async_callback(one.aclose)
        place = parse_url(settings.dest)
        if plan and isinstance(place, FileDestination) and not Path(place.path).exists():
            yield one, cast(Target, Nowhere(place.url))
            return
        other = await open_target(settings.dest, create=not plan, **limits)
        stack.push_async_callback(other.aclose)
        if settings.rate_limit or settings.request_limit:
            pace = join_pace(settings)
            stack.callback(pace.close)
            other = PacedTarget(other, pace, first=False)
        yield one, other


def _refuse_nested(source: str, destination: str) -> None:
    one, other = parse_url(source), parse_url(destination)
    if isinstance(one, FileDestination) and isinstance(other, FileDestination):
        places = [f"{place.path.rstrip('/')}/" for place in (one, other)]
    elif isinstance(one, FileDestination) or isinstance(other, FileDestination):
        return
    else:
        places = [f"{at.endpoint}|{at.bucket}/{at.prefix}/".replace("//", "/") for at in (one, other)]
    if places[0].startswith(places[1]) or places[1].startswith(places[0]):
        raise ConfigError("source and destination of a copy lie in each other", hint="choose a place beside the source")
