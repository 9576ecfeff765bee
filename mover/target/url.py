"""Destination URLs: what they mean, and how they are shown.

``file:///abs/path``, ``s3://bucket/prefix?endpoint=...&profile=...&region=...`` (README.md has all options) and
OceanBase's own ``oss://bucket/dir/?host=...&access_id=...&access_key=...``, and ``cos://`` likewise. As in OceanBase
the text is split at the first '?', then at '&', then at the first '='; percent escapes are decoded after that and '+'
is itself (access keys contain it).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from mover.errors import OB_BACKUP_DEST_INVALID, ConfigError
from mover.target.base import Target
from mover.target.object_options import NAMES as OBJECT_OPTIONS
from mover.target.object_options import ObjectOptions, parse_options
from mover.target.profile_file import read_profile
from mover.target.profiles import CONFIRMATIONS, PROFILES, Profile

_HIDDEN = "***"
# Values that may be shown. Everything else is hidden, so that a misspelled "acess_key" is hidden too.
_SHOWN = frozenset(
    {"host", "endpoint", "region", "profile", "addressing", "signature", "part_size", "concurrency", "timeout", "appid"}
    | {"sender", "confirm", "payload", "ca", "tls", "aws_profile", *OBJECT_OPTIONS}
    | {"data_dir", "base_dir", "cluster", "tenant", "tenant_id", "database", "version", "uid", "gid"}
)
_OPTIONS = frozenset(
    {"host", "endpoint", "region", "profile", "addressing", "signature", "concurrency", "appid"}
    | {"sender", "confirm", "payload", "ca", "tls", "aws_profile", *OBJECT_OPTIONS}
    | {"access_id", "access_key", "session_token"}
)
_HOST_HINT = "add endpoint=http://host:port"
_HOST_HINTS = {"oss": "add host=oss-<region>.aliyuncs.com", "cos": "add host=cos.<region>.myqcloud.com"}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*\Z")
_BUCKET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,254}\Z")
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://[^:@/]*):.*@", re.DOTALL)


_PLAIN = ObjectOptions()


@dataclass(frozen=True, slots=True)
class FileDestination:
    """A directory."""

    path: str

    @property
    def url(self) -> str:
        return f"file://{quote(self.path)}"


@dataclass(frozen=True, slots=True)
class ObjectDestination:
    """A bucket, a prefix in it, and how to reach it. Its repr and its ``url`` hold no secret."""

    url: str  # redacted
    bucket: str
    prefix: str  # "" or without a slash at either end
    profile: Profile
    endpoint: str | None
    region: str | None
    addressing: str
    signature: str
    sender: str = "fast"  # or "aiobotocore"
    confirm: tuple[str, ...] = ("md5",)  # see Profile
    payload: str = "unsigned"  # or "signed": with its SHA-256
    objects: ObjectOptions = _PLAIN
    concurrency: int | None = None  # None: what pays is found by trying
    ca: str | None = None  # file or directory of authorities, instead of what the machine trusts
    tls: str = "1.2"  # the oldest version
    aws_profile: str | None = None  # of the AWS configuration, instead of the environment's choice
    access_id: str | None = field(default=None, repr=False)
    access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)


def redact(url: str) -> str:
    """``url`` as it may be shown: passwords and the values of all query keys that are not known as harmless are hidden.

    Works on any text, also one that does not parse: a wrong URL is shown in an error, and may still hold a key.
    """
    head, mark, query = url.partition("?")
    if "@" in query and _USERINFO.match(url):
        # A password with a '?' in it: nothing behind the first colon can be trusted to be a query.
        return _USERINFO.sub(rf"\1:{_HIDDEN}@", url.rpartition("@")[0] + "@") + _HIDDEN
    head = _USERINFO.sub(rf"\1:{_HIDDEN}@", head)
    if not mark:
        return head
    shown: list[str] = []
    for piece in query.split("&"):
        key, equals, value = piece.partition("=")
        name = unquote(key).strip().lower()
        if equals and name in _SHOWN:
            safe = "@" not in unquote(value) and "?" not in unquote(value)
            shown.append(piece if safe else f"{key}={_HIDDEN}")
        elif equals and name in _OPTIONS:
            shown.append(f"{key}={_HIDDEN}")
        else:
            # An unknown key, or the rest of a secret with an '&' in it.
            shown.append(_HIDDEN)
    return f"{head}?{'&'.join(shown)}"


def parse_url(url: str, objects: Mapping[str, str] | None = None) -> FileDestination | ObjectDestination:
    """What a destination URL says. Raises ConfigError, whose text shows the URL redacted.

    Args:
        objects: object options (:mod:`mover.target.object_options`) where the URL has none of that name.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME.match(scheme):
        raise _bad(url, "it has no scheme", "write file:///directory or s3://bucket/prefix?endpoint=...")
    if scheme == "file":
        if objects:
            message = f"{', '.join(sorted(objects))} can not be had there"
            raise _bad(url, message, "leave the setting out, or name an object store")
        return _parse_file(url, rest)
    if scheme in ("s3", "oss", "cos"):
        return _parse_object(url, scheme, rest, objects or {})
    raise _bad(url, f"{scheme}:// is not known", "use file://, s3://, oss:// or cos://")


async def open_target(
    url: str,
    *,
    create: bool = True,
    concurrency: int | None = None,
    objects: Mapping[str, str] | None = None,
    retry_for: float | None = None,
    file_timeout: float | None = None,
) -> Target:
    """Open a destination, and prove that it answers.

    Args:
        url: see the module. Keys in it are accepted, but the environment is the better place for them.
        create: make the directory of a ``file://`` destination when it is missing. Readers pass False.
        concurrency: for object stores, instead of what the URL or the default says.
        objects: see :func:`parse_url`.
        retry_for: seconds that a request to an object store is repeated for; None is two minutes.
        file_timeout: seconds after which one call into a file system counts as hung; None is five minutes.

    Raises ConfigError for a URL that can not be used or a bucket that does not exist, UnreachableError when nobody
    answers or the sign-in is refused. Close the result with ``aclose``.
    """
    destination = parse_url(url, objects)
    if isinstance(destination, FileDestination):
        from mover.target.files import CALL_SECONDS, FileTarget

        timeout = CALL_SECONDS if file_timeout is None else file_timeout
        files = FileTarget(destination.path, destination.url, create=create, timeout=timeout)
        try:
            await files.open()
        except BaseException:
            await files.aclose()
            raise
        return files
    # Imported here: botocore takes a tenth of a second that nobody with a file:// destination should wait for.
    from mover.target.s3 import S3Target
    from mover.target.s3_client import RETRY_SECONDS

    if concurrency is not None:
        destination = dataclasses.replace(destination, concurrency=concurrency)
    opened = S3Target(destination, retry_for=RETRY_SECONDS if retry_for is None else retry_for)
    try:
        await opened.open()
    except BaseException:
        await opened.aclose()
        raise
    return opened


def _parse_file(url: str, rest: str) -> FileDestination:
    path, mark, _ = rest.partition("?")
    if mark:
        raise _bad(url, "file:// takes no options", "leave out everything from '?' on; write a '?' of the path as %3F")
    if path.startswith("localhost/"):
        path = path[len("localhost") :]
    path = unquote(path)
    if not path.startswith("/"):
        raise _bad(url, "the path is not absolute", "write file:///directory with three slashes")
    if "\0" in path or ".." in path.split("/"):
        raise _bad(url, "the path has '..' or a zero byte in it", "name the directory itself")
    return FileDestination("/" + "/".join(part for part in path.split("/") if part not in ("", ".")))


def _parse_object(url: str, scheme: str, rest: str, objects: Mapping[str, str]) -> ObjectDestination:
    head, _, query = rest.partition("?")
    if "@" in head.partition("/")[0]:
        raise _bad(
            url, "it has a user in it", "put keys into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        )
    bucket, _, prefix = head.partition("/")
    if not _BUCKET.match(bucket):
        raise _bad(url, "there is no valid bucket name behind '//'", f"write {scheme}://bucket/prefix")
    parts = [unquote(part) for part in prefix.split("/") if part]
    if any(part in (".", "..") or "/" in part or "\0" in part for part in parts):
        raise _bad(url, "the prefix has '.' or '..' in it", "name the prefix itself")
    options = _options(url, query)
    profile = _profile(url, scheme, options)
    endpoint, region = _endpoint(url, profile, options)
    access_id, access_key = options.get("access_id"), options.get("access_key")
    if (access_id is None) != (access_key is None):
        raise _bad(url, "only one of access_id and access_key is given", "give both, or none and use the environment")
    addressing = _choice(url, options, "addressing", profile.addressing, ("virtual", "path", "cname"))
    return ObjectDestination(
        url=redact(url),
        bucket=bucket,
        prefix="/".join(parts),
        profile=profile,
        endpoint=endpoint,
        region=region,
        addressing=addressing,
        signature=_choice(url, options, "signature", profile.signature, ("s3v4", "s3")),
        sender=_choice(url, options, "sender", "fast", ("fast", "aiobotocore")),
        confirm=(_choice(url, options, "confirm", "", CONFIRMATIONS),) if "confirm" in options else profile.confirm,
        payload=_choice(url, options, "payload", "unsigned", ("unsigned", "signed")),
        concurrency=_number(url, options, "concurrency", 8, 1, 256) if "concurrency" in options else None,
        ca=_absolute(url, options, "ca"),
        tls=_choice(url, options, "tls", "1.2", ("1.2", "1.3")),
        aws_profile=options.get("aws_profile"),
        objects=_object_options(url, objects, options),
        access_id=access_id,
        access_key=access_key,
        session_token=options.get("session_token"),
    )


def _object_options(url: str, settings: Mapping[str, str], options: dict[str, str]) -> ObjectOptions:
    try:
        return parse_options({**settings, **options})
    except ValueError as error:
        raise _bad(url, f"its {error}", "README.md has the options of objects") from None


def _options(url: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for piece in query.split("&") if query else []:
        key, equals, value = piece.partition("=")
        name = unquote(key)
        if not equals or name not in _OPTIONS:
            # Not named in the message: it may be the second half of a key with an '&' in it.
            raise _bad(
                url,
                "there is an option in it that is not known",
                f"known are {', '.join(sorted(_OPTIONS))}; write an '&' inside a value as %26",
            )
        if name in options:
            raise _bad(url, f"the option {name} is given twice", "give it once")
        options[name] = unquote(value)
    return {name: value for name, value in options.items() if value}


def _profile(url: str, scheme: str, options: dict[str, str]) -> Profile:
    default = scheme if scheme in ("oss", "cos") else "generic" if "endpoint" in options or "host" in options else "aws"
    name = options.get("profile", default)
    if name.startswith("/"):
        return read_profile(name)
    if name not in PROFILES:
        raise _bad(url, "its profile is not known", f"use one of {', '.join(PROFILES)}, or the path of a file")
    return PROFILES[name]


def _endpoint(url: str, profile: Profile, options: dict[str, str]) -> tuple[str | None, str | None]:
    endpoint = options.get("endpoint") or options.get("host")
    region = options.get("region") or profile.default_region
    if endpoint is None:
        if profile.needs_endpoint:
            raise _bad(url, f"profile {profile.name} needs an endpoint", _HOST_HINTS.get(profile.name, _HOST_HINT))
        return None, region
    if "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    try:
        parts = urlsplit(endpoint)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.path in ("", "/")
        valid = (
            valid and not (parts.query or parts.fragment or parts.username) and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        valid = False
    if not valid:
        raise _bad(url, "its endpoint is not one", "write http://host:port or https://host")
    found = re.fullmatch(r"(?:s3\.)?oss-([a-z0-9-]+?)(-internal)?\.aliyuncs\.com", parts.hostname or "")
    if found and profile.name == "oss":
        # The S3 interface of OSS answers at s3.oss-<region>; people write the address of the native one.
        port = f":{parts.port}" if parts.port else ""
        endpoint = f"{parts.scheme}://s3.oss-{found[1]}{found[2] or ''}.aliyuncs.com{port}"
        region = options.get("region") or found[1]
    at_cos = re.fullmatch(r"cos(?:-internal)?\.([a-z0-9-]+)\.(?:myqcloud|tencentcos)\.[a-z]+", parts.hostname or "")
    if at_cos and profile.name == "cos":
        region = region or at_cos[1]
    if profile.name in _HOST_HINTS and region is None:
        hint = f"add region={'cn-hangzhou' if profile.name == 'oss' else 'ap-guangzhou'} or the one it is in"
        raise _bad(url, "the region can not be read from its host", hint)
    return endpoint.rstrip("/"), region


def _absolute(url: str, options: dict[str, str], name: str) -> str | None:
    path = options.get(name)
    if path is not None and not path.startswith("/"):
        raise _bad(url, f"its {name} is not an absolute path", f"write {name}=/directory/file")
    return path


def _choice(url: str, options: dict[str, str], name: str, default: str, allowed: tuple[str, ...]) -> str:
    value = options.get(name, default)
    if value not in allowed:
        raise _bad(url, f"its {name} is not known", f"use {' or '.join(allowed)}")
    return value


def _number(url: str, options: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = options.get(name)
    if text is None:
        return default
    found = re.fullmatch(r"([0-9]{1,12})(K|M|G|)(?:i?B)?", text)
    value = int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]] if found else -1
    if not low <= value <= high:
        raise _bad(url, f"its {name} is not a number from {low} to {high}", f"write for example {name}={default}")
    return value


def _bad(url: str, reason: str, hint: str) -> ConfigError:
    return ConfigError(f"destination {redact(url)} can not be used: {reason}", hint=hint, code=OB_BACKUP_DEST_INVALID)
