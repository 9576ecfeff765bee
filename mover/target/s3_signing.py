"""Signatures, made by botocore's signers for requests that are our own."""

from __future__ import annotations

from typing import Any

from botocore.auth import UNSIGNED_PAYLOAD, HmacV1Auth, S3SigV4Auth
from botocore.awsrequest import AWSRequest

from mover.target.s3_operations import Request
from mover.target.s3_site import Site


class _SigV4(S3SigV4Auth):  # type: ignore[misc]
    """The payload's digest is known beforehand, or the payload is left out of the signature."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context["payload"])


def sign(request: Request, site: Site, signature: str, credentials: Any, payload: str | None) -> dict[str, str]:
    """The headers to send: the request's own and those that the signature adds. ``host`` is the first.

    Args:
        signature: "s3v4" or "s3".
        credentials: frozen ones of botocore.
        payload: SHA-256 of the body in hex; None leaves it to the checksums in the headers, which are signed.
    """
    path = site.path_of(request.key)
    url = f"{site.origin}{path}{f'?{request.query}' if request.query else ''}"
    bucket_path = path if site.path else f"{site.bucket_path}{path}"
    signed = AWSRequest(request.method, url, headers={"host": site.netloc, **request.headers}, auth_path=bucket_path)
    if signature == "s3v4":
        signed.context["payload"] = payload or UNSIGNED_PAYLOAD
        _SigV4(credentials, "s3", site.region).add_auth(signed)
    else:
        HmacV1Auth(credentials).add_auth(signed)
    return dict(signed.headers.items())
