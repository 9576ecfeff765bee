"""Every way of signing in to an object store, set up as a person would.

``WAYS[name](cloud, directory)`` returns the variables of the environment and the options of the URL. Services and files
give new keys when they are asked again, where the way has that.
"""

import os
import sys
from urllib.parse import quote

from cloud_services import CONTAINER_TOKEN

NOTHING = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
    "TENCENTCLOUD_METADATA_DISABLED": "true",
}
_VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CA_BUNDLE"),
    *("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    *("AWS_CONTAINER_AUTHORIZATION_TOKEN", "ALIBABA_CLOUD_ACCESS_KEY_ID", "OSS_ACCESS_KEY_ID"),
    *("TENCENTCLOUD_SECRET_ID", "ALIBABA_CLOUD_ECS_METADATA", "ALIBABA_CLOUD_CREDENTIALS_URI"),
    *("ALIBABA_CLOUD_ROLE_ARN", "ALIBABA_CLOUD_OIDC_TOKEN_FILE"),
)


def clear(monkeypatch):
    """Nothing of this machine reaches into a test."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in NOTHING.items():
        monkeypatch.setenv(name, value)


def _url(cloud, _directory):
    key = cloud.issue(temporary=False)
    return {}, {"access_id": key.id, "access_key": key.secret}


def _environment(cloud, _directory):
    key = cloud.issue(temporary=False)
    return {"AWS_ACCESS_KEY_ID": key.id, "AWS_SECRET_ACCESS_KEY": key.secret}, {}


def _session_token(cloud, _directory):
    key = cloud.issue()
    return {"AWS_ACCESS_KEY_ID": key.id, "AWS_SECRET_ACCESS_KEY": key.secret, "AWS_SESSION_TOKEN": key.token}, {}


def write_file(cloud, directory):
    """A credentials file with new keys, as a tool that fetches tokens writes it."""
    key = cloud.issue()
    file = directory / "credentials"
    new = directory / "credentials.new"
    new.write_text(
        f"[backup]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n"
        f"aws_session_token = {key.token}\n"
    )
    new.rename(file)
    return file


def _file(cloud, directory):
    return {"AWS_SHARED_CREDENTIALS_FILE": str(write_file(cloud, directory)), "AWS_PROFILE": "backup"}, {}


def _process(cloud, directory):
    """A program that gives out what the container endpoint does: new keys each time."""
    program = directory / "give.py"
    program.write_text(
        "import json, urllib.request\n"
        f"headers = {{'Authorization': '{CONTAINER_TOKEN}'}}\n"
        f"ask = urllib.request.Request('{cloud.services}/container', headers=headers)\n"
        "found = json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(ask))\n"
        "found['SessionToken'] = found.pop('Token')\n"
        "print(json.dumps({'Version': 1, **found}))\n"
    )
    return _config(directory, f"credential_process = {sys.executable} {program}")


def _assume_role(cloud, directory):
    key = cloud.issue(temporary=False)
    text = (
        "role_arn = arn:aws:iam::1:role/backup\nsource_profile = base\nregion = us-east-1\n"
        f"[profile base]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n"
    )
    variables, options = _config(directory, text)
    return {**variables, "AWS_ENDPOINT_URL_STS": cloud.services}, options


def _web_identity(cloud, directory):
    token = f"identity-{os.urandom(8).hex()}"
    cloud.identities.add(token)
    file = directory / "identity"
    file.write_text(token)
    return {
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/backup",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(file),
        "AWS_ENDPOINT_URL_STS": cloud.services,
        "AWS_DEFAULT_REGION": "us-east-1",
    }, {}


def _instance(cloud, _directory):
    return {"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.services}, {}


def _container(cloud, _directory):
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{cloud.services}/container",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": CONTAINER_TOKEN,
    }, {}


_OSS = {"profile": "oss", "addressing": "path", "region": "us-east-1", "confirm": "md5"}
_COS = {**_OSS, "profile": "cos"}


def _alibaba(cloud, _directory):
    key = cloud.issue()
    names = ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN")
    return dict(zip(names, (key.id, key.secret, key.token), strict=True)), _OSS


def _oss(cloud, _directory):
    key = cloud.issue(temporary=False)
    return {"OSS_ACCESS_KEY_ID": key.id, "OSS_ACCESS_KEY_SECRET": key.secret}, _OSS


def _ram_role(cloud, _directory):
    return {
        "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "false",
        "ALIBABA_CLOUD_ECS_METADATA_SERVICE_ENDPOINT": cloud.services,
    }, _OSS


def _oidc(cloud, directory):
    token = f"identity-{os.urandom(8).hex()}"
    cloud.identities.add(token)
    (directory / "identity").write_text(token)
    return {
        "ALIBABA_CLOUD_ROLE_ARN": "acs:ram::1:role/backup",
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": "acs:ram::1:oidc-provider/ack",
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(directory / "identity"),
        "ALIBABA_CLOUD_STS_ENDPOINT": cloud.services,
    }, _OSS


def _uri(cloud, _directory):
    return {"ALIBABA_CLOUD_CREDENTIALS_URI": f"{cloud.services}/uri"}, _OSS


def _cvm_role(cloud, _directory):
    return {
        "TENCENTCLOUD_METADATA_DISABLED": "false",
        "TENCENTCLOUD_METADATA_SERVICE_ENDPOINT": cloud.services,
    }, _COS


def _tencent(cloud, _directory):
    key = cloud.issue()
    names = ("TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_SESSION_TOKEN")
    return dict(zip(names, (key.id, key.secret, key.token), strict=True)), _COS


def _config(directory, text):
    file = directory / "config"
    file.write_text(f"[profile backup]\n{text}\n")
    return {"AWS_CONFIG_FILE": str(file), "AWS_PROFILE": "backup"}, {}


FIXED = {
    "url": _url,
    "environment": _environment,
    "session-token": _session_token,
    "alibaba-variables": _alibaba,
    "oss-variables": _oss,
    "tencent-variables": _tencent,
}
RENEWED = {
    "file": _file,
    "credential-process": _process,
    "assume-role": _assume_role,
    "web-identity": _web_identity,
    "instance-role": _instance,
    "container": _container,
    "ecs-ram-role": _ram_role,
    "alibaba-oidc": _oidc,
    "alibaba-uri": _uri,
    "cvm-role": _cvm_role,
}
WAYS = {**FIXED, **RENEWED}


def destination(cloud, prefix, options, **more):
    """The URL of the verifying store."""
    query = {"endpoint": cloud.endpoint, "profile": "seaweedfs", **options, **more}
    text = "&".join(f"{name}={quote(value, safe=':/')}" for name, value in query.items())
    return f"s3://mover/{prefix}?{text}"


__all__ = ["FIXED", "RENEWED", "WAYS", "clear", "destination", "write_file"]
