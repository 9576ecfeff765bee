"""TLS to an object store: whom to trust, how old a protocol may be, and what a failed handshake means."""

from __future__ import annotations

import os
import ssl

import botocore

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

# OpenSSL's verify codes (x509_vfy.h) that have a cause of their own.
_EXPIRED, _NOT_YET, _WRONG_HOST = {10}, {9}, {62, 64}
_OLD = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE", "WRONG_SSL_VERSION"}
_PLAIN = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"}


class BadBundle(Exception):
    """The file of authorities can not be read, or has none."""


def make_context(bundle: str | None, least: str) -> ssl.SSLContext:
    """A context that verifies certificate and host.

    Args:
        bundle: a file of authorities, or a directory of them, instead of what the machine trusts.
        least: the oldest protocol that is spoken, a key of ``VERSIONS``.

    Raises BadBundle.
    """
    if bundle is not None:
        several = os.path.isdir(bundle)
        try:
            context = ssl.create_default_context(cafile=None if several else bundle, capath=bundle if several else None)
        except OSError as error:
            raise BadBundle(bundle) from error
    else:
        context = ssl.create_default_context()
        # What the library trusts, for machines that have no certificates installed.
        context.load_verify_locations(os.path.join(os.path.dirname(botocore.__file__), "cacert.pem"))
    context.minimum_version = VERSIONS[least]
    return context


def explain(error: ssl.SSLError) -> tuple[str, str]:
    """A handshake that failed, and what to do, in words without anything that the other side said."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _EXPIRED:
            return "the server's certificate has expired", "renew it; or set this machine's clock, if that is wrong"
        if error.verify_code in _NOT_YET:
            return "the server's certificate is not valid yet", "set this machine's clock, or the one that signed it"
        if error.verify_code in _WRONG_HOST:
            hint = (
                "use a host name of the certificate in endpoint=, or addressing=path when the bucket is in front of it"
            )
            return "the server's certificate is for another host", hint
        hint = "give the file of its authority as ca=FILE in the URL, or in AWS_CA_BUNDLE"
        return "the server's certificate is of an authority that is not trusted here", hint
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        hint = "the server may want another version of TLS, or not speak it there: see its log, and tls= in the URL"
        return "the server broke off the handshake", hint
    if error.reason in _OLD:
        hint = "the server speaks only older or other versions of TLS: upgrade it, or see tls= in the URL"
        return "no version of TLS that both sides accept", hint
    if error.reason in _PLAIN:
        return "the server does not speak TLS there", "check port and scheme of the endpoint: http:// or https://"
    return "certificate or protocol", "check the certificate and the protocols of the server"


def find_error(error: BaseException | None) -> ssl.SSLError | None:
    """The handshake's error in what a library made of it."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        # aiohttp's errors are SSLErrors by name only: they have the real one.
        inner = [getattr(found, name) for name in ("os_error", "certificate_error") if hasattr(found, name)]
        if isinstance(found, ssl.SSLError) and not inner:
            return found
        waiting += [found.__context__, found.__cause__, *inner]
    return None
