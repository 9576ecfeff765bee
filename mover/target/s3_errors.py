"""What went wrong at an object store: worth another try or not, and what it means to a person."""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from mover.errors import ConfigError, MoverError, TargetError, TargetExists, TargetNotFound, UnreachableError

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
CALL_ERRORS = (boto.BotoCoreError, boto.ClientError, aiohttp.ClientError, OSError, ResponseParserError)

_RETRY = {
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "InternalServerError",
    "RequestTimeout",
    "OperationAborted",
    "ConditionalRequestConflict",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    # The content was damaged on its way: it is sent again.
    "BadDigest",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "ContentSHA256Mismatch",
}
# Another try signs with the present time and with credentials that were fetched anew.
_RETRY_ONCE = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestTimeTooSkewed",
    "RequestExpired",
    "TokenRefreshRequired",
}
_SIGN_IN = {
    "AccessDenied": "give this key list, read, write and delete rights on the bucket",
    "AllAccessDisabled": "the account is disabled at the store",
    "InvalidAccessKeyId": "check the access id: the store does not know it",
    "SignatureDoesNotMatch": "check the secret key, and that region and profile are those of the bucket",
    "RequestTimeTooSkewed": "set this machine's clock: it differs from the store's by more than it accepts",
    "ExpiredToken": "get new temporary credentials: these have expired",
    "InvalidToken": "get new temporary credentials: the session token is not valid",
    "AuthorizationHeaderMalformed": "give the region of the bucket (region=...)",
    "SecondLevelDomainForbidden": "use profile=oss: this store wants the bucket in the host name",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of a call, read once."""

    code: str  # the store's own, "" when nobody answered
    status: int  # HTTP, 0 when nobody answered
    words: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        if isinstance(error, boto.ClientError):
            body = error.response.get("Error", {})
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
            return cls(str(body.get("Code") or status), status, str(body.get("Message") or "no message")[:300])
        return cls("", 0, _silence(error))

    def retries(self, error: BaseException) -> int | None:
        """How many more tries are worth it: 0, 1, or None for as many as the caller allows."""
        if not self.code:
            return None if isinstance(error, _TRANSPORT) else 0
        if self.code in _RETRY_ONCE:
            return 1
        if self.code in _RETRY or self.status in (408, 429) or (self.status >= 500 and self.status != 501):
            return None
        return 0


def typed_error(error: BaseException, doing: str, path: str, url: str) -> MoverError:
    """The error to raise for ``error``, met while ``doing`` ("write", "read" ...) ``path`` at ``url`` (redacted)."""
    failure = Failure.of(error)
    kind, message, hint = _meaning(error, failure)
    place = f"{doing} {path!r} at {url}" if path else f"{doing} {url}"
    return kind(f"can not {place}{message}", hint=hint, path=path or None, s3_code=failure.code or None)


def _meaning(error: BaseException, failure: Failure) -> tuple[type[MoverError], str, str | None]:
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or configure a profile or a role"
        return ConfigError, ": no usable credentials were found", hint
    if not failure.code:
        if isinstance(error, _TRANSPORT):
            hint = "check endpoint, network and name resolution, and that the store is up"
            return UnreachableError, f": {failure.words}", hint
        return ConfigError, f": {failure.words}", "check the options of the URL"
    said = f": the store said {failure.code}: {failure.words}"
    if failure.code == "NoSuchBucket":
        return ConfigError, ": the bucket does not exist", "create the bucket first"
    if failure.status in (401, 403) or failure.code in _SIGN_IN:
        return UnreachableError, said, _SIGN_IN.get(failure.code, "check the keys and their rights on the bucket")
    if failure.code == "PreconditionFailed" or failure.status == 412:
        return TargetExists, ": the name is taken", None
    if failure.code in ("NoSuchKey", "NotFound", "404"):
        return TargetNotFound, ": no such object", None
    if failure.retries(error) is None:
        hint = "the store keeps refusing; look at its health and limits, then repeat the command"
        return TargetError, f", also after several tries{said}", hint
    fits = failure.status not in (400, 405, 501)
    return TargetError, said, None if fits else "check that the profile of the URL fits the store"


def _silence(error: BaseException) -> str:
    if isinstance(error, boto.ConnectTimeoutError):
        return "no connection in time"
    if isinstance(error, (boto.ReadTimeoutError, TimeoutError)):
        return "no answer in time"
    if isinstance(error, boto.SSLError):
        return "TLS could not be set up (certificate or protocol)"
    if isinstance(error, boto.EndpointConnectionError):
        return "no connection (refused, or no such host)"
    if isinstance(error, (boto.ConnectionClosedError, aiohttp.ClientError, boto.HTTPClientError, OSError)):
        return "the connection broke"
    # Not the text of the error: parameters may be quoted in it.
    return f"the request could not be made ({type(error).__name__})"
