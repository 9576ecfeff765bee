"""What went wrong at an object store: worth another try or not, and what it means to a person."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from mover.errors import ConfigError, MoverError, TargetError, TargetExists, TargetNotFound, UnreachableError

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
    "InvalidDigest",  # the same at OSS
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "ContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
}
# Another try signs with the present time and with credentials that were fetched anew.
_RETRY_ONCE = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestTimeTooSkewed",
    "RequestExpired",
    "TokenRefreshRequired",
}
_TAKEN = {"PreconditionFailed", "FileAlreadyExists"}  # Amazon's word, OSS's
_SLOWER = {"SlowDown", "RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequests"}
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
    """How one attempt of a call failed, in the same words for every sender."""

    code: str = ""  # the store's own, "" when nobody answered
    status: int = 0  # HTTP, 0 when nobody answered
    words: str = ""  # without secrets
    transport: bool = False  # nobody answered, or not to the end: another try may find it better
    credentials: bool = False  # there are none to sign with
    retry_after: float = 0.0  # seconds that the store wants to be left alone

    @classmethod
    def said(cls, code: str, status: int, message: str, headers: Mapping[str, str]) -> Failure:
        """What the store answered; ``headers`` with lower-case names."""
        wait = _seconds(headers.get("retry-after", ""))
        return cls(code or str(status), status, (message or "no message")[:300], retry_after=wait)

    @property
    def retries(self) -> int | None:
        """How many more tries are worth it: 0, 1, or None for as many as the caller allows."""
        if not self.code:
            return None if self.transport else 0
        if self.code in _RETRY_ONCE:
            return 1
        if self.code in _RETRY or self.status in (408, 429) or (self.status >= 500 and self.status != 501):
            return None
        return 0

    @property
    def slower(self) -> bool:
        """The store wants fewer requests."""
        return self.code in _SLOWER or self.status in (429, 503)


class CallFailed(Exception):
    """An attempt of a sender failed. Never leaves :class:`mover.target.s3_client.S3Client`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.words)
        self.failure = failure


def typed_error(failure: Failure, doing: str, path: str, url: str) -> MoverError:
    """The error to raise for ``failure``, met while ``doing`` ("write", "read" ...) ``path`` at ``url`` (redacted)."""
    kind, message, hint = _meaning(failure)
    place = f"{doing} {path!r} at {url}" if path else f"{doing} {url}"
    return kind(f"can not {place}{message}", hint=hint, path=path or None, s3_code=failure.code or None)


def _meaning(failure: Failure) -> tuple[type[MoverError], str, str | None]:
    if failure.credentials:
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or configure a profile or a role"
        return ConfigError, ": no usable credentials were found", hint
    if not failure.code:
        if failure.transport:
            hint = "check endpoint, network and name resolution, and that the store is up"
            return UnreachableError, f": {failure.words}", hint
        return ConfigError, f": {failure.words}", "check the options of the URL"
    said = f": the store said {failure.code}: {failure.words}"
    if failure.code == "NoSuchBucket":
        return ConfigError, ": the bucket does not exist", "create the bucket first"
    if failure.status in (401, 403) or failure.code in _SIGN_IN:
        return UnreachableError, said, _SIGN_IN.get(failure.code, "check the keys and their rights on the bucket")
    if failure.code in _TAKEN or failure.status == 412:
        return TargetExists, ": the name is taken", None
    if failure.code in ("NoSuchKey", "NotFound", "404"):
        return TargetNotFound, ": no such object", None
    if failure.retries is None:
        hint = "the store keeps refusing; look at its health and limits, then repeat the command"
        return TargetError, f", also after several tries{said}", hint
    fits = failure.status not in (400, 405, 501)
    return TargetError, said, None if fits else "check that the profile of the URL fits the store"


def _seconds(text: str) -> float:
    """What a Retry-After header asks for: seconds, or a date. 0 for what is neither."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
