"""What stands between :class:`mover.target.s3_client.S3Client` and the network: one attempt of one call.

Two implementations, chosen by the URL (``sender=fast|aiobotocore``) and held to the same tests: our own, which sends a
body from where it is and starts in a tenth of a second, and the library, for whatever ours is suspected of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

CONNECT_SECONDS = 5.0


class S3Sender(Protocol):
    """Calls to one bucket, each tried once."""

    async def open(self) -> None:
        """Make ready; nothing is sent. Raises CallFailed or ValueError for settings that can not be used."""
        ...

    async def send(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        *,
        body: memoryview | None = None,
        into: memoryview | None = None,
        read: bool = False,
        seconds: float,
        silence: float | None = None,
    ) -> dict[str, Any]:
        """One attempt, ended after ``seconds``, and after ``silence`` when the answer has not begun by then.

        Args:
            operation, parameters: as botocore names them; the bucket is known.
            body: sent as Body.
            into: takes the answer's body, from its start; "Filled" in the answer says how many bytes, and a body
                longer than this is cut off. Only a success fills it.
            read: the answer's body, whole, as "Body" (bytes).

        Returns the answer in botocore's form. Raises CallFailed. The fast sender does not touch ``body`` and ``into``
        any more once this has returned or raised, also when it was cancelled; the library may hold slices of ``body``
        for a moment, and then only for a connection that is being closed.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        ...


async def wait_out(ended: asyncio.Future[Any]) -> None:
    """Until a thread that can not be stopped is out of its call; a cancel does not shorten that, and is raised then."""
    cancelled: asyncio.CancelledError | None = None
    while not ended.done():
        try:
            await asyncio.wait([ended])
        except asyncio.CancelledError as error:
            cancelled = error
    if not ended.cancelled():
        ended.exception()  # an error that nobody waits for any more is not worth a warning
    if cancelled is not None:
        raise cancelled
