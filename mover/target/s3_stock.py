"""The library's way to a store: one aiobotocore client, with the settings that OSS and others need as well."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore import exceptions as boto
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError

from mover.target.credentials import CONFIGURED, NoKeys, SignIn
from mover.target.s3_body import PartBody
from mover.target.s3_errors import CallFailed, Failure, bad_configuration, no_connection, no_keys
from mover.target.s3_operations import BESIDE, HEADERS, content_md5
from mover.target.s3_sender import CONNECT_SECONDS
from mover.target.tls import VERSIONS, find_error
from mover.target.url import ObjectDestination

READ_SECONDS = 60.0
_beside: ContextVar[dict[str, str]] = ContextVar("_beside")  # headers of the call that is being made
_TRANSPORT = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    aiohttp.ClientError,
    OSError,
    ResponseParserError,
)
# Everything a call may end in; anything else is a bug of ours and is not dressed up.
_CALL_ERRORS = (boto.BotoCoreError, boto.ClientError, aiohttp.ClientError, OSError, ResponseParserError, NoKeys)


class StockSender:
    """See :class:`mover.target.s3_sender.S3Sender`."""

    def __init__(self, destination: ObjectDestination, sign_in: SignIn, *, connections: int) -> None:
        self._destination = destination
        self._sign_in = sign_in
        self._connections = connections  # fewer than there are tasks would throttle silently
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def open(self) -> None:
        destination = self._destination
        if destination.addressing == "cname":
            words = "the library can not send to a bucket's own domain: leave out sender=aiobotocore"
            raise CallFailed(Failure(words=words))
        s3: dict[str, Any] = {"addressing_style": destination.addressing}  # OSS takes virtual hosts only
        if destination.signature == "s3v4":
            s3["payload_signing_enabled"] = destination.payload == "signed"
        config = AioConfig(
            signature_version=destination.signature,
            s3=s3,
            # The default sends aws-chunked bodies with a trailing CRC, which OSS and older stores refuse.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=self._connections,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1},
            warm_up_loader_caches=True,  # reads its service model in a thread
            http_session_cls=_session_class(VERSIONS[destination.tls]),
        )
        session = AioSession(profile=destination.aws_profile)
        session.register_component("credential_provider", _Keys(self._sign_in))
        try:
            self._client = await self._stack.enter_async_context(
                session.create_client(
                    "s3",
                    region_name=destination.region,
                    endpoint_url=destination.endpoint,
                    verify=destination.ca,
                    config=config,
                )
            )
        except _CALL_ERRORS as error:
            raise CallFailed(_failure(error)) from error
        # "Expect: 100-continue" costs a round trip per part, and a peer that never answers it is waited for for ever.
        self._client.meta.events.unregister("before-call.s3", add_expect_header)
        self._client.meta.events.register("before-call.s3", _add_headers)
        self._client.meta.events.register("before-call.s3.DeleteObjects", _add_digest)

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
        del silence  # the library knows READ_SECONDS only
        content = {} if body is None else {"Body": PartBody(body)}
        told = _beside.set({HEADERS[name]: str(value) for name, value in parameters.items() if name in BESIDE})
        parameters = {name: value for name, value in parameters.items() if name not in BESIDE}
        try:
            async with asyncio.timeout(seconds):
                method = getattr(self._client, operation)
                answer: dict[str, Any] = await method(Bucket=self._destination.bucket, **parameters, **content)
                if read or into is not None:
                    async with answer["Body"] as stream:
                        data = await stream.read()
                    if into is not None:
                        answer["Filled"] = min(len(data), len(into))
                        into[: answer["Filled"]] = data[: len(into)]
                    answer["Body"] = data
                return answer
        except _CALL_ERRORS as error:
            raise CallFailed(_failure(error)) from error
        finally:
            _beside.reset(told)

    async def aclose(self) -> None:
        await self._stack.aclose()


def _add_headers(params: dict[str, Any], **_event: Any) -> None:
    """Headers that the library's model does not know, before the request is signed."""
    params["headers"].update(_beside.get())


class _Keys(AioCredentials):  # type: ignore[misc]
    """The one provider, as the library asks for it: it is the resolver and what that finds."""

    def __init__(self, sign_in: SignIn) -> None:
        super().__init__("", "", method="mover")
        self._sign_in = sign_in

    async def load_credentials(self) -> _Keys:
        return self

    async def get_frozen_credentials(self) -> Any:
        return await asyncio.to_thread(self._sign_in.keys)


def _session_class(least: ssl.TLSVersion) -> type[AIOHTTPSession]:
    class Session(AIOHTTPSession):  # type: ignore[misc]
        def _get_ssl_context(self) -> ssl.SSLContext:
            context: ssl.SSLContext = super()._get_ssl_context()
            context.minimum_version = least
            return context

    return Session


def _add_digest(params: dict[str, Any], **_event: Any) -> None:
    """The library sends another checksum with DeleteObjects, which OSS and older stores do not take for one."""
    params["headers"]["Content-MD5"] = content_md5(params["body"])


def _failure(error: BaseException) -> Failure:
    if isinstance(error, boto.ClientError):
        said, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        status = int(meta.get("HTTPStatusCode") or 0)
        headers = meta.get("HTTPHeaders") or {}
        return Failure.said(str(said.get("Code") or ""), status, str(said.get("Message") or ""), headers)
    if isinstance(error, CONFIGURED):
        return bad_configuration(error)
    if isinstance(error, NoKeys):
        return no_keys(error)
    if (handshake := find_error(error)) is not None:
        return no_connection(handshake)
    return Failure(words=_silence(error), transport=isinstance(error, _TRANSPORT))


def _silence(error: BaseException) -> str:
    if isinstance(error, boto.ConnectTimeoutError):
        return "no connection in time"
    if isinstance(error, (boto.ReadTimeoutError, TimeoutError)):
        return "no answer in time"
    if isinstance(error, boto.ProxyConnectionError):
        return "no connection through the proxy"
    if isinstance(error, boto.EndpointConnectionError):
        return "no connection (refused, or no such host)"
    if isinstance(error, (boto.ConnectionClosedError, aiohttp.ClientError, boto.HTTPClientError, OSError)):
        return "the connection broke"
    # Not the text of the error: parameters may be quoted in it.
    return f"the request could not be made ({type(error).__name__})"
