"""Alibaba Cloud's key management service as a :class:`mover.encryption.sources.Kms`: its Encrypt and Decrypt.

``alibaba-kms://<key id or alias>?region=...`` or ``?endpoint=https://...``; keys from ALIBABA_CLOUD_ACCESS_KEY_ID,
ALIBABA_CLOUD_ACCESS_KEY_SECRET and ALIBABA_CLOUD_SECURITY_TOKEN, never from the URL. Requests are of the "RPC style" of
Alibaba Cloud's OpenAPI: version 2016-01-20, signature version 1.0 by HMAC-SHA1. The real service was not tried.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from mover.errors import ConfigError, PreconditionError, UnreachableError

SCHEME = "alibaba-kms"
_OPTIONS = {"region", "endpoint"}
_CONTEXT = json.dumps({"application": "mover", "purpose": "backup key ring"}, sort_keys=True)
_SECONDS = 10.0
_LONGEST = 64 << 10  # of an answer
_BUSY = ("Throttling", "ServiceUnavailable", "InternalFailure", "Rejected.Throttling")


class AlibabaKms:
    """One key of Alibaba Cloud's KMS.

    Args:
        url: see the module.

    Raises ConfigError for a URL that is not of this form.
    """

    def __init__(self, url: str) -> None:
        scheme, mark, rest = url.partition("://")
        key, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        if scheme != SCHEME or not mark or not key or not options or not options.keys() <= _OPTIONS:
            raise ConfigError(
                f"--encrypt-kms is not {SCHEME}://KEY with region or endpoint",
                hint=f"for example {SCHEME}://alias/backup?region=cn-hangzhou; see the README about its credentials",
            )
        self._key = unquote(key)
        self._endpoint = options.get("endpoint") or f"https://kms.{options['region']}.aliyuncs.com"
        self.url = f"{SCHEME}://{key}?{urlencode(options)}"

    async def encrypt(self, plain: bytes) -> bytes:
        text = base64.b64encode(plain).decode()
        answer = await self._call("Encrypt", KeyId=self._key, Plaintext=text, EncryptionContext=_CONTEXT)
        return str(answer["CiphertextBlob"]).encode()

    async def decrypt(self, wrapped: bytes) -> bytes | None:
        blob = wrapped.decode("ascii", "replace")
        answer = await self._call("Decrypt", CiphertextBlob=blob, EncryptionContext=_CONTEXT)
        return base64.b64decode(answer["Plaintext"])

    async def _call(self, action: str, **arguments: str) -> Mapping[str, Any]:
        key_id = os.environ.get("ALIBABA_CLOUD_ACCESS_KEY_ID")
        secret = os.environ.get("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
        if not key_id or not secret:
            raise PreconditionError(
                f"{self.url}: there are no credentials",
                hint="set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET",
            )
        parameters = {
            "Action": action,
            "Version": "2016-01-20",
            "Format": "JSON",
            "AccessKeyId": key_id,
            "SignatureMethod": "HMAC-SHA1",
            "SignatureVersion": "1.0",
            "SignatureNonce": uuid.uuid4().hex,
            "Timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **arguments,
        }
        if token := os.environ.get("ALIBABA_CLOUD_SECURITY_TOKEN"):
            parameters["SecurityToken"] = token
        parameters["Signature"] = signature("POST", parameters, secret)
        try:
            status, body = await asyncio.to_thread(self._post, urlencode(parameters))
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise UnreachableError(
                f"{self.url}: {str(reason).lower()}", hint="check region or endpoint of the key service"
            ) from None
        try:
            answer = json.loads(body)
            code = "" if status == 200 else str(answer["Code"])
        except (ValueError, KeyError, TypeError):
            answer, code = {}, f"status {status}"
        if code:
            text = f"{self.url}: {action.lower()} was answered with {code}"
            if status >= 500 or code.startswith(_BUSY):
                raise UnreachableError(text, hint="the key service is out of order or busy; try again")
            raise PreconditionError(
                text, hint="the key must be the one that wrapped, exist, be enabled, and these credentials may use it"
            )
        found: Mapping[str, Any] = answer
        return found

    def _post(self, form: str) -> tuple[int, bytes]:
        place = urlsplit(self._endpoint)
        kind = HTTPSConnection if place.scheme == "https" else HTTPConnection
        connection = kind(place.hostname or "", place.port, timeout=_SECONDS)
        try:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", "/", body=form, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(_LONGEST)
        finally:
            connection.close()


def signature(method: str, parameters: Mapping[str, str], secret: str) -> str:
    """Signature version 1.0 of a request to ``/`` with these parameters, all but Signature itself."""

    def encoded(text: str) -> str:
        return quote(text, safe="-_.~")

    pairs = "&".join(f"{encoded(name)}={encoded(parameters[name])}" for name in sorted(parameters))
    text = f"{method}&{encoded('/')}&{encoded(pairs)}"
    return base64.b64encode(hmac.digest(f"{secret}&".encode(), text.encode(), "sha1")).decode()
