"""Amazon's key management service as a :class:`mover.encryption.sources.Kms`: its Encrypt and Decrypt.

``aws-kms://<key id, alias or ARN>?region=...&endpoint=...``; credentials from AWS's own chain, never from the URL.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode

from mover.errors import ConfigError, MoverError, PreconditionError, UnreachableError

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

SCHEME = "aws-kms"
_OPTIONS = {"region", "endpoint"}
# Bound to every wrapped key and shown in AWS's audit log.
_CONTEXT = {"application": "mover", "purpose": "backup key ring"}
_NOT_OURS = {"InvalidCiphertextException", "IncorrectKeyException"}


class AwsKms:
    """One key of Amazon's KMS.

    Args:
        url: see the module.

    Raises ConfigError for a URL that is not of this form.
    """

    def __init__(self, url: str) -> None:
        scheme, mark, rest = url.partition("://")
        key, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        if scheme != SCHEME or not mark or not key or not options.keys() <= _OPTIONS:
            raise ConfigError(
                f"--encrypt-kms is not {SCHEME}://KEY with the options {' and '.join(sorted(_OPTIONS))}",
                hint=f"for example {SCHEME}://alias/backup?region=eu-central-1; credentials come from AWS's own chain",
            )
        self._key = unquote(key)
        self._options = options
        self.url = f"{SCHEME}://{key}" + (f"?{urlencode(options)}" if options else "")

    async def encrypt(self, plain: bytes) -> bytes:
        answer = await self._call("encrypt", KeyId=self._key, Plaintext=plain, EncryptionContext=_CONTEXT)
        return bytes(answer["CiphertextBlob"])

    async def decrypt(self, wrapped: bytes) -> bytes | None:
        try:
            answer = await self._call("decrypt", KeyId=self._key, CiphertextBlob=wrapped, EncryptionContext=_CONTEXT)
        except _NotOursError:
            return None
        return bytes(answer["Plaintext"])

    async def _call(self, operation: str, **arguments: Any) -> Any:
        from aiobotocore.config import AioConfig
        from botocore.exceptions import BotoCoreError, ClientError

        config = AioConfig(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 3, "mode": "standard"})
        try:
            async with _session().create_client(
                "kms",
                region_name=self._options.get("region"),
                endpoint_url=self._options.get("endpoint"),
                config=config,
            ) as client:
                return await getattr(client, operation)(**arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in _NOT_OURS:
                raise _NotOursError from None
            text = f"{self.url}: {operation} was answered with {code or status}"
            if status >= 500 or code in {"ThrottlingException", "LimitExceededException"}:
                raise UnreachableError(text, hint="the key service is out of order or busy; try again") from None
            raise PreconditionError(
                text, hint="the key must exist and be enabled, and the credentials must be allowed to use it"
            ) from None
        except BotoCoreError as error:
            # Its sentences name hosts and regions, no credentials.
            raise UnreachableError(
                f"{self.url}: {str(error).rstrip('.')}",
                hint="check region, endpoint and credentials of the key service",
            ) from None


@functools.cache
def _session() -> AioSession:
    """Reads the description of the service once: that takes longer than asking it."""
    from aiobotocore.session import get_session

    return get_session()


class _NotOursError(MoverError):
    """The blob was wrapped by another key, or with another context."""

    def __init__(self) -> None:
        super().__init__("wrapped by another key")
