"""What went wrong at an object store: worth another try or not, and what it means to a person."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from mover.errors import ConfigError, MoverError, TargetError, TargetExists, TargetNotFound, UnreachableError
from mover.target.credentials import CONFIGURATION_HINT, NoKeys
from mover.target.s3_site import ProxyFailed
from mover.target.tls import BadBundle, explain

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
# Another try signs with keys that were looked up anew: these have ended,
_ENDED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "SecurityTokenExpired",
    "TokenRefreshRequired",
}
# and these may have been replaced by others.
_UNKNOWN_KEYS = {"InvalidAccessKeyId", "InvalidToken", "InvalidSecurityToken", "SignatureDoesNotMatch"}
# Another try signs with the present time, by the store's clock.
_STALE = {"RequestTimeTooSkewed", "RequestExpired"}
_TAKEN = {"PreconditionFailed", "FileAlreadyExists"}  # Amazon's word, OSS's
_SLOWER = {"SlowDown", "RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequests"}
_SIGN_IN = {
    "AccessDenied": "give this key list, read, write and delete rights on the bucket",
    "AllAccessDisabled": "the account is disabled at the store",
    "InvalidAccessKeyId": "check the access id: the store does not know it",
    "SignatureDoesNotMatch": "check the secret key, and that region and profile are those of the bucket",
    "RequestTimeTooSkewed": "set this machine's clock (NTP): it differs from the store's by more than it accepts",
    "ExpiredToken": "get new temporary credentials: these have expired",
    "SecurityTokenExpired": "get new temporary credentials: these have expired",
    "InvalidToken": "get new temporary credentials: the session token is not valid",
    "AuthorizationHeaderMalformed": "give the region of the bucket (region=...)",
    "SecondLevelDomainForbidden": "use profile=oss: this store wants the bucket in the host name",
}


TOLERATED_SKEW = 240.0  # seconds; stores refuse from 5 or 15 minutes on
_PROXY_HINT = "check HTTPS_PROXY (user, password, host, port), or name the store in NO_PROXY"
_SILENT_HINT = {
    True: "check the service that gives out the credentials: STS, or the metadata service of the instance",
    False: None,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """How one attempt of a call failed, in the same words for every sender."""

    code: str = ""  # the store's own, "" when nobody answered
    status: int = 0  # HTTP, 0 when nobody answered
    words: str = ""  # without secrets
    transport: bool = False  # nobody answered, or not to the end: another try may find it better
    credentials: bool = False  # there are none to sign with
    refused: bool = False  # by TLS or a proxy, before the store was reached: the same next time
    hint: str | None = None  # what to do, where that is known better than by the code
    retry_after: float = 0.0  # seconds that the store wants to be left alone
    skew: float | None = None  # seconds that the store's clock is ahead of ours, if it said the time

    @classmethod
    def said(cls, code: str, status: int, message: str, headers: Mapping[str, str]) -> Failure:
        """What the store answered; ``headers`` with lower-case names."""
        wait = _seconds(headers.get("retry-after", ""))
        return cls(code or str(status), status, message or "no message", retry_after=wait, skew=clock_skew(headers))

    @property
    def passes(self) -> bool:
        """The same request may be answered another time."""
        if not self.code:
            return self.transport
        return self.code in _RETRY or self.status in (408, 429) or (self.status >= 500 and self.status != 501)

    @property
    def ended(self) -> bool:
        """The keys have expired."""
        return self.code in _ENDED

    def doubts_keys(self, temporary: bool) -> bool:
        """Other keys may be taken. An answer to HEAD has no code: then only ``temporary`` keys are in doubt."""
        return self.ended or self.code in _UNKNOWN_KEYS or (temporary and self.code in ("400", "401", "403"))

    @property
    def stale(self) -> bool:
        """The time of the signature is in doubt."""
        far = self.skew is not None and abs(self.skew) > TOLERATED_SKEW
        return self.code in _STALE or (far and self.code in ("400", "403"))

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
        return ConfigError, f": no usable credentials were found ({failure.words})", failure.hint or hint
    if failure.refused:
        return UnreachableError, f": {failure.words}", failure.hint
    if not failure.code:
        if failure.transport:
            hint = "check endpoint, network and name resolution, and that the store is up"
            return UnreachableError, f": {failure.words}", failure.hint or hint
        return ConfigError, f": {failure.words}", failure.hint or "check the options of the URL"
    said = f": the store said {failure.code}: {failure.words}"
    if failure.code == "NoSuchBucket":
        return ConfigError, ": the bucket does not exist", "create the bucket first"
    if failure.status == 407:
        return UnreachableError, ": the proxy refused the sign-in (407)", _PROXY_HINT
    if failure.stale and failure.skew is not None:
        side = "behind" if failure.skew > 0 else "ahead of"
        off = f"this machine's clock is {span(failure.skew)} {side} the store's, which refuses that"
        return UnreachableError, f": {off} ({failure.code})", _SIGN_IN["RequestTimeTooSkewed"]
    if failure.status in (401, 403) or failure.code in _SIGN_IN:
        known = _SIGN_IN.get(failure.code, "check the keys and their rights on the bucket")
        return UnreachableError, said, failure.hint or known
    if failure.code in _TAKEN or failure.status == 412:
        return TargetExists, ": the name is taken", None
    if failure.code in ("NoSuchKey", "NotFound", "404"):
        return TargetNotFound, ": no such object", None
    if failure.passes:
        hint = "the store keeps refusing; look at its health and limits, then repeat the command"
        return TargetError, f", also after several tries{said}", hint
    fits = failure.status not in (400, 405, 501)
    return TargetError, said, None if fits else "check that the profile of the URL fits the store"


def no_keys(error: NoKeys) -> Failure:
    """There was nothing to sign with."""
    return Failure(
        words=str(error),
        transport=error.silent,
        credentials=not error.silent,
        hint=error.hint or _SILENT_HINT[error.silent],
    )


def bad_configuration(error: Exception) -> Failure:
    """The AWS configuration names what is not there, or does not parse. Its text may quote a file with keys."""
    words = f"the AWS configuration can not be used ({type(error).__name__})"
    return Failure(words=words, hint=CONFIGURATION_HINT)


def bad_bundle(error: BadBundle) -> Failure:
    """Nobody can be trusted."""
    return Failure(
        words=f"the authorities in {error} can not be read", hint="name a PEM file with ca= or AWS_CA_BUNDLE"
    )


def no_connection(error: BaseException | None) -> Failure:
    """No connection could be made, for the reason ``error``."""
    if isinstance(error, ssl.SSLError):
        reason, hint = explain(error)
        # A handshake that broke off may be one of a server that is just starting.
        broke = isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
        return Failure(words=f"TLS could not be set up: {reason}", transport=broke, refused=not broke, hint=hint)
    if isinstance(error, ProxyFailed):
        if error.status is not None:
            words = f"the proxy refused to connect ({error.status})"
            return Failure(words=words, transport=error.status >= 500, refused=error.status < 500, hint=_PROXY_HINT)
        return Failure(words="no connection to the proxy", transport=True, hint=_PROXY_HINT)
    if isinstance(error, TimeoutError):
        return Failure(words="no connection in time", transport=True)
    return Failure(words="no connection (refused, or no such host)", transport=True)


def clock_skew(headers: Mapping[str, str]) -> float | None:
    """Seconds that the store's clock is ahead of ours, by the Date of an answer that just came (lower-case names).

    None without one. To a second: Date has no fractions, and half of one is added for those.
    """
    try:
        return parsedate_to_datetime(headers["date"]).timestamp() + 0.5 - time.time()
    except (KeyError, TypeError, ValueError):
        return None


def span(seconds: float) -> str:
    """A length of time for a message, without its sign."""
    seconds = abs(seconds)
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def _seconds(text: str) -> float:
    """What a Retry-After header asks for: seconds, or a date. 0 for what is neither."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
