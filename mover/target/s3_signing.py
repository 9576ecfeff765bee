"""Signatures, made by botocore's signers for requests that are our own."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

from botocore.auth import UNSIGNED_PAYLOAD, HmacV1Auth, S3SigV4Auth
from botocore.awsrequest import AWSRequest

from mover.target.s3_operations import Request
from mover.target.s3_site import Site


def _now() -> float:
    return time.time()


class _SigV4(S3SigV4Auth):  # type: ignore[misc]
    """The payload's digest is known beforehand, or the payload is left out of the signature."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context["payload"])

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        # Where the time is set and nothing has used it.
        moment = time.gmtime(_now() + request.context["offset"])
        request.context["timestamp"] = time.strftime("%Y%m%dT%H%M%SZ", moment)
        super()._modify_request_before_signing(request)


class _V2(HmacV1Auth):  # type: ignore[misc]
    def __init__(self, credentials: Any, offset: float) -> None:
        super().__init__(credentials)
        self._offset = offset

    def _get_date(self) -> str:
        return formatdate(_now() + self._offset, usegmt=True)


def sign(
    request: Request, site: Site, signature: str, credentials: Any, payload: str | None, offset: float = 0.0
) -> dict[str, str]:
    """The headers to send: the request's own and those that the signature adds. ``host`` is the first.

    Args:
        signature: "s3v4" or "s3".
        credentials: frozen ones of botocore.
        payload: SHA-256 of the body in hex; None leaves it to the checksums in the headers, which are signed.
        offset: seconds that the store's clock is ahead of this machine's.
    """
    path = site.path_of(request.key)
    url = f"{site.origin}{path}{f'?{request.query}' if request.query else ''}"
    bucket_path = path if site.path else f"{site.bucket_path}{path}"
    signed = AWSRequest(request.method, url, headers={"host": site.netloc, **request.headers}, auth_path=bucket_path)
    if signature == "s3v4":
        signed.context |= {"payload": payload or UNSIGNED_PAYLOAD, "offset": offset}
        _SigV4(credentials, "s3", site.region).add_auth(signed)
    else:
        _V2(credentials, offset).add_auth(signed)
    return dict(signed.headers.items())
