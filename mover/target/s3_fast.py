"""Our own S3 client: the operations of a destination over kept connections, signed by botocore.

Neither the library's HTTP client nor its service model is loaded: it starts in a tenth of a second, and a part costs
what the kernel takes to send it.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any, TypeVar

from botocore import exceptions as boto

from mover import __version__
from mover.target.credentials import CONFIGURED, NoKeys, SignIn
from mover.target.s3_errors import CallFailed, Failure, bad_bundle, bad_configuration, no_connection, no_keys
from mover.target.s3_operations import OPERATIONS, Operation, make_request, read_headers
from mover.target.s3_sender import wait_out
from mover.target.s3_signing import sign
from mover.target.s3_site import BadProxy, Site, Surroundings
from mover.target.s3_wire import Answer, Attempt, ConnectFailed, Connections, Stopped
from mover.target.s3_xml import parse_xml
from mover.target.threads import Threads
from mover.target.tls import BadBundle
from mover.target.url import ObjectDestination

T = TypeVar("T")

_WRONG_REGION = (301, 307, 400)


class FastSender:
    """See :class:`mover.target.s3_sender.S3Sender`."""

    def __init__(self, destination: ObjectDestination, sign_in: SignIn, *, connections: int) -> None:
        self._destination = destination
        self._sign_in = sign_in
        self._threads = Threads(connections, "mover-s3")
        self._surroundings: Surroundings | None = None
        self._site: Site | None = None
        self._connections: Connections | None = None

    async def open(self) -> None:
        await asyncio.wrap_future(self._threads.submit(_told, self._prepare))

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
        attempt = Attempt()

        def work() -> dict[str, Any]:
            return self._attempt(attempt, operation, parameters, body, into, read)

        job = self._threads.submit(_told, work)
        ended = asyncio.wrap_future(job)
        try:
            first = seconds if silence is None else min(silence, seconds)
            await asyncio.wait([ended], timeout=first)
            if not ended.done() and attempt.answered:
                await asyncio.wait([ended], timeout=seconds - first)
        finally:
            if not ended.done():
                ended.add_done_callback(_look_at)
                job.cancel()  # what has not begun never will
                if attempt.stop():
                    await wait_out(ended)
        if attempt.stopped:
            raise CallFailed(Failure(words="no answer in time", transport=True))
        answer: dict[str, Any] | None = ended.result()
        assert answer is not None, "only what was stopped has none"
        return answer

    async def aclose(self) -> None:
        self._threads.shutdown()
        if self._connections is not None:
            self._connections.close()

    def _prepare(self, region: str | None = None) -> None:
        if self._surroundings is None:
            self._surroundings = Surroundings(self._destination)
        site = self._surroundings.site(region)
        old, self._connections, self._site = self._connections, Connections(site), site
        if old is not None:
            old.close()

    def _attempt(
        self,
        attempt: Attempt,
        name: str,
        parameters: Mapping[str, Any],
        body: memoryview | None,
        into: memoryview | None,
        read: bool,
    ) -> dict[str, Any]:
        operation = OPERATIONS[name]
        answer = self._exchange(attempt, operation, parameters, body, into, read)
        elsewhere = answer.headers.get("x-amz-bucket-region")
        if answer.status in _WRONG_REGION and elsewhere and self._moves_to(elsewhere):
            answer = self._exchange(attempt, operation, parameters, body, into, read)
        return _understood(operation, answer, into is not None, read)

    def _moves_to(self, region: str) -> bool:
        """Amazon says where a bucket is. Only there, and only when the user did not say where to send to."""
        if self._destination.endpoint is not None or self._site is None or region == self._site.region:
            return False
        self._prepare(region)
        return True

    def _exchange(
        self,
        attempt: Attempt,
        operation: Operation,
        parameters: Mapping[str, Any],
        body: memoryview | None,
        into: memoryview | None,
        read: bool,
    ) -> Answer:
        site, connections, sign_in = self._site, self._connections, self._sign_in
        assert site is not None and connections is not None
        request = make_request(operation, parameters, body)
        digest = None
        if self._destination.payload == "signed":
            with attempt.memory():
                digest = hashlib.sha256(request.body).hexdigest()
        keys = sign_in.keys()
        headers = sign(request, site, self._destination.signature, keys, digest, sign_in.offset)
        if operation.method in ("PUT", "POST"):
            headers["content-length"] = str(len(request.body))
        headers["user-agent"] = f"mover/{__version__}"
        path = site.path_of(request.key)
        target = f"{path}?{request.query}" if request.query else path
        if site.proxy is not None and not site.tls:
            target = f"{site.origin}{target}"
            headers |= site.proxy.headers
        lines = [f"{operation.method} {target} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header with a line break")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return connections.exchange(attempt, operation.method, head, request.body, into, read)


def _understood(operation: Operation, answer: Answer, into: bool, read: bool) -> dict[str, Any]:
    """The answer as a dictionary. Raises CallFailed for a refusal, also one that comes with 200."""
    try:
        found = read_headers(answer.headers, answer.status)
        document = parse_xml(answer.body) if answer.body and not (read and answer.status < 300) else None
        if answer.status >= 300 or (document is not None and document.name == "Error"):
            code, words = "", ""
            if document is not None:
                code, words = document.text_of("Code") or "", document.text_of("Message") or ""
            # An error that comes with 200 is one of the store's own: it began to answer before it had finished.
            status = answer.status if answer.status >= 300 else 500
            raise CallFailed(Failure.said(code, status, words, answer.headers))
        if operation.answer is not None and document is not None:
            if operation.root and document.name != operation.root:
                raise ValueError(document.name)
            found |= operation.answer(document)
    except ValueError as error:
        if answer.status >= 300:
            raise CallFailed(Failure.said("", answer.status, "", answer.headers)) from error
        raise CallFailed(Failure(words="the answer is not one of S3", transport=True)) from error
    if into:
        found["Filled"] = answer.filled
    if read:
        found["Body"] = answer.body
    return found


def _told(work: Callable[[], T]) -> T | None:
    """``work()`` in a thread. Its errors become CallFailed, in words that are safe to show."""
    try:
        return work()
    except Stopped:
        return None
    except ConnectFailed as error:
        raise CallFailed(no_connection(error.__cause__)) from error
    except BadProxy as error:
        words = "the proxy in the environment is not one that can be used"
        hint = (
            "set HTTPS_PROXY=http://user:password@host:port, with %XX for special characters; only http:// proxies work"
        )
        raise CallFailed(Failure(words=words, hint=hint)) from error
    except BadBundle as error:
        raise CallFailed(bad_bundle(error)) from error
    except NoKeys as error:
        raise CallFailed(no_keys(error)) from error
    except ssl.SSLError as error:
        raise CallFailed(Failure(words="the connection broke (TLS)", transport=True)) from error
    except (HTTPException, OSError) as error:
        raise CallFailed(Failure(words="the connection broke", transport=True)) from error
    except CONFIGURED as error:
        raise CallFailed(bad_configuration(error)) from None
    except boto.BotoCoreError as error:
        # Not the text of the error: parameters may be quoted in it.
        raise CallFailed(Failure(words=f"the request could not be made ({type(error).__name__})")) from error


def _look_at(ended: asyncio.Future[Any]) -> None:
    """An error that nobody waits for any more is not worth a warning."""
    if not ended.cancelled():
        ended.exception()
