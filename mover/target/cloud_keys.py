"""Keys of Alibaba Cloud and Tencent Cloud, where botocore does not look: their variables, and the role of an instance.

Sources: Alibaba Cloud's "Manage access credentials" of the SDKs, "AssumeRoleWithOIDC" of its STS, and "Instance RAM
roles" (metadata service at 100.100.100.200, a session token for it by PUT, as Amazon's IMDSv2); Tencent Cloud's
"Managing roles of instances" (metadata.tencentyun.com). The tests play these services; the real ones were not tried.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import HTTPClientError

ROLE_ARN = "ALIBABA_CLOUD_ROLE_ARN"
PROVIDER_ARN = "ALIBABA_CLOUD_OIDC_PROVIDER_ARN"
IDENTITY_FILE = "ALIBABA_CLOUD_OIDC_TOKEN_FILE"
CREDENTIALS_URI = "ALIBABA_CLOUD_CREDENTIALS_URI"
STS_ENDPOINT = "ALIBABA_CLOUD_STS_ENDPOINT"  # host, or for tests a URL
_STS_SECONDS = 10.0
_SECONDS = 2.0  # the service is on the host: nobody there is the usual reason for no answer
_VALID_SECONDS = "21600"
_LONGEST = 64 << 10


class MetadataSilent(Exception):
    """The metadata service is there and can not say anything now."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """Where one cloud's keys are.

    ``variables``: names of id, secret and token, in the order they are looked for. ``endpoint`` may be overridden by
    the variable ``endpoint_variable``, ``role_variable`` names the role, ``off_variable`` = "true" asks nobody.
    ``fields``: what id, secret, token and expiration are called in the answer.
    """

    method: str
    variables: tuple[tuple[str, str, str], ...]
    endpoint: str
    endpoint_variable: str
    path: str
    role_variable: str
    off_variable: str
    fields: tuple[str, str, str, str]
    session_path: str | None = None
    session_header: str = ""
    ttl_header: str = ""

    def from_environment(self) -> Credentials | None:
        """Keys in variables, or None."""
        for names in self.variables:
            key_id, secret, token = (os.environ.get(name) for name in names)
            if key_id and secret:
                return Credentials(key_id, secret, token or None, method="env")
        return None

    def from_services(self) -> RefreshableCredentials | None:
        """Keys that a service gives out: one that variables name, else this instance's; None without any. Blocks.

        Raises MetadataSilent, and OSError, ValueError and KeyError for what can not be read.
        """
        if self.method == "ecs-ram-role":
            if os.environ.get(IDENTITY_FILE) and os.environ.get(ROLE_ARN) and os.environ.get(PROVIDER_ARN):
                return _renewed(self._of_token, "alibaba-oidc")
            if os.environ.get(CREDENTIALS_URI):
                return _renewed(self._of_uri, "alibaba-uri")
        return self._from_instance()

    def _of_token(self) -> dict[str, str]:
        """Alibaba's AssumeRoleWithOIDC, which needs no signature. The token is read each time: it is replaced."""
        query = {
            "Action": "AssumeRoleWithOIDC",
            "Format": "JSON",
            "Version": "2015-04-01",
            "RoleArn": os.environ[ROLE_ARN],
            "OIDCProviderArn": os.environ[PROVIDER_ARN],
            "RoleSessionName": os.environ.get("ALIBABA_CLOUD_ROLE_SESSION_NAME") or "mover",
            "Timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "SignatureNonce": secrets.token_hex(16),
        }
        token = Path(os.environ[IDENTITY_FILE]).read_text(encoding="utf-8").strip()
        address = os.environ.get(STS_ENDPOINT) or "sts.aliyuncs.com"
        url = f"{address if '://' in address else f'https://{address}'}/?{urlencode(query)}"
        return self._read(_fetch_url("POST", url, {"OIDCToken": token})["Credentials"])

    def _of_uri(self) -> dict[str, str]:
        return self._read(_fetch_url("GET", os.environ[CREDENTIALS_URI]))

    def _from_instance(self) -> RefreshableCredentials | None:
        if os.environ.get(self.off_variable, "").lower() == "true":
            return None
        try:
            first = self._fetch()
        except OSError:
            return None  # no instance of this cloud
        if first is None:
            return None
        return RefreshableCredentials.create_from_metadata(first, refresh_using=self._again, method=self.method)

    def _again(self) -> dict[str, str]:
        try:
            found = self._fetch()
        except OSError as error:
            raise MetadataSilent from error
        if found is None:
            raise MetadataSilent
        return found

    def _fetch(self) -> dict[str, str] | None:
        parts = urlsplit(os.environ.get(self.endpoint_variable) or self.endpoint)
        # Never through a proxy: the answer is meant for this machine.
        connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_SECONDS)
        try:
            headers: dict[str, str] = {}
            if self.session_path is not None:
                status, token = _ask(connection, "PUT", self.session_path, {self.ttl_header: _VALID_SECONDS})
                if status == 200:
                    headers = {self.session_header: token.decode("ascii").strip()}
            role = os.environ.get(self.role_variable)
            if not role:
                status, names = _ask(connection, "GET", self.path, headers)
                if status == 404 or (status == 200 and not names.strip()):
                    return None
                role = _good(status, names).decode("utf-8").strip().splitlines()[0]
            return self._read(json.loads(_good(*_ask(connection, "GET", self.path + quote(role), headers))))
        finally:
            connection.close()

    def _read(self, answer: Mapping[str, Any]) -> dict[str, str]:
        if str(answer.get("Code", "Success")) != "Success":
            raise MetadataSilent
        key_id, secret, token, end = (answer[name] for name in self.fields)
        moment = datetime.fromtimestamp(end, UTC).isoformat() if isinstance(end, int) else str(end)
        return {"access_key": str(key_id), "secret_key": str(secret), "token": str(token), "expiry_time": moment}


def _renewed(fetch: Callable[[], dict[str, str]], method: str) -> RefreshableCredentials:
    return RefreshableCredentials.create_from_metadata(fetch(), refresh_using=fetch, method=method)


def _fetch_url(method: str, url: str, form: Mapping[str, str] | None = None) -> Any:
    """The JSON of a success, by a proxy of the environment if need be. ValueError for a refusal; MetadataSilent."""
    # Imported here: few sign in like this, and all would wait for it.
    from botocore.awsrequest import AWSRequest
    from botocore.httpsession import URLLib3Session
    from botocore.utils import get_environ_proxies

    session = URLLib3Session(timeout=_STS_SECONDS, proxies=get_environ_proxies(url))
    try:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        answer = session.send(AWSRequest(method, url, headers, urlencode(form or {}).encode()).prepare())
        body = answer.content
    except HTTPClientError:
        raise MetadataSilent from None
    finally:
        session.close()
    if answer.status_code >= 500:
        raise MetadataSilent
    if answer.status_code != 200:
        raise ValueError("refused")
    return json.loads(body)


def _ask(connection: HTTPConnection, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(_LONGEST)
    except HTTPException as error:
        raise MetadataSilent from error


def _good(status: int, body: bytes) -> bytes:
    if status != 200:
        raise MetadataSilent
    return body


# By the device type of a profile.
CLOUDS: Mapping[str, Cloud] = {
    "OSS": Cloud(
        method="ecs-ram-role",
        variables=(
            ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN"),
            ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN"),
        ),
        endpoint="http://100.100.100.200",
        endpoint_variable="ALIBABA_CLOUD_ECS_METADATA_SERVICE_ENDPOINT",
        path="/latest/meta-data/ram/security-credentials/",
        role_variable="ALIBABA_CLOUD_ECS_METADATA",
        off_variable="ALIBABA_CLOUD_ECS_METADATA_DISABLED",
        fields=("AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration"),
        session_path="/latest/api/token",
        session_header="X-aliyun-ecs-metadata-token",
        ttl_header="X-aliyun-ecs-metadata-token-ttl-seconds",
    ),
    "COS": Cloud(
        method="cvm-role",
        variables=(("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_SESSION_TOKEN"),),
        endpoint="http://metadata.tencentyun.com",
        endpoint_variable="TENCENTCLOUD_METADATA_SERVICE_ENDPOINT",
        path="/latest/meta-data/cam/security-credentials/",
        role_variable="TENCENTCLOUD_CVM_ROLE",
        off_variable="TENCENTCLOUD_METADATA_DISABLED",
        fields=("TmpSecretId", "TmpSecretKey", "Token", "ExpiredTime"),
    ),
}
