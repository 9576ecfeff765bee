"""A command that works on a session: settings, display, session and signals put together."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from mover.cli.invocation import Invocation

# The event loop is imported when there is a job: listing commands and help start in half the time.
if TYPE_CHECKING:
    from mover.cli.progress import Display
    from mover.cli.runner import Control, Outcome
    from mover.rootservice.session import Session

T = TypeVar("T")
Body = Callable[["Session", "Control"], Awaitable[T]]


def display_for(invocation: Invocation, *, stream: bool = False) -> Display:
    """How this run shows progress: not at all, as JSON lines of a stream, live on a terminal, or line by line."""
    from mover.cli.progress import Display, JsonLines, Lines, Live

    interval = invocation.settings().progress_interval
    if invocation.json and stream:
        return JsonLines(interval, invocation.redactor)
    if invocation.quiet:
        return Display()
    if sys.stderr.isatty():
        return Live(invocation.redactor)
    return Lines(interval, invocation.redactor)


def with_session(
    invocation: Invocation,
    body: Body[T],
    *,
    need_source: bool,
    need_catalog: bool = True,
    create: bool = False,
    need_keys: bool = True,
    archiving: bool = False,
    silent: bool = False,
    stream: bool = False,
) -> Outcome[T]:
    """Run ``body(session, control)``.

    Args:
        need_source: the store must be given and open.
        need_catalog: leases or the views of jobs are used; what only reads the destination starts faster without.
        need_keys: what is encrypted may be read.
        create, archiving: see :func:`mover.rootservice.session.open_session`.
        silent: a look-up that is over before progress would help.
        stream: events are JSON lines on stdout when ``--json`` is given.
    """
    from mover.cli.progress import Display
    from mover.cli.runner import run_job

    settings = invocation.settings("dest", *(["source"] if need_source else []))
    display = Display() if silent else display_for(invocation, stream=stream)

    async def whole(control: Control) -> T:
        from mover.rootservice.session import open_session

        async with open_session(
            settings,
            need_source=need_source,
            need_catalog=need_catalog,
            create=create,
            need_keys=need_keys,
            archiving=archiving,
            emit=display.emit,
        ) as session:
            if not silent:
                # What was imported stays until the end: the collector need not look at it again and again.
                gc.freeze()
            return await body(session, control)

    return run_job(whole, display)
