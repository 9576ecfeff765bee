"""What must not be shown: which names carry secrets, and how texts and URLs look without them.

Used by settings, the log filter and every message that quotes a URL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

MASK = "***"

# Options of URLs that may be shown.
_HARMLESS = frozenset(
    {"host", "endpoint", "region", "profile", "addressing", "signature", "part_size", "concurrency", "timeout", "appid"}
    | {"sender", "confirm", "payload", "ca", "tls", "aws_profile"}
    | {"sse", "sse_kms_key_id", "storage_class", "tags", "object_lock"}
    | {"access_id", "unix_socket", "charset", "data_dir", "base_dir", "cluster", "tenant", "tenant_id", "database"}
)
_SHORTEST = 6  # of what is looked for in every text; a shorter secret would mask half the words
# A parameter, key or header whose name ends like this carries a secret. Names of files that hold one do not.
_NAME = (
    r"(?:[\w-]*(?:access[_-]?key|secret|secret[_-]?(?:access[_-]?)?key|password|passwd|passphrase"
    r"|(?:session|security|auth|bearer)[_-]?token|token|signature|authorization|credential)"
    r"|sk|pwd)"
)
_VARIABLE = re.compile(_NAME, re.IGNORECASE)
_SIGN_IN = ("AWS_", "ALIBABA_CLOUD_", "OSS_", "TENCENTCLOUD_", "MOVER_")
_USERINFO = re.compile(r"(?P<head>\b[a-z][a-z0-9+.-]*://[^\s/?#:@]*):(?P<value>[^\s/?#]*)@", re.IGNORECASE)
# name=value as in a query string, a DSN, an environment listing; name: value as in a header, a dict or JSON.
_PAIR = re.compile(
    rf"""(?P<head>(?<![\w-])["']?{_NAME}["']?\s*(?:=|:)\s*)"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s&;,"'<>)}\]]+(?:\s+Credential=\S+)?)""",
    re.IGNORECASE,
)


def redact(message: str) -> str:
    """The text with the values of secrets replaced; what is no secret stays as it is. Idempotent."""
    return _PAIR.sub(_mask_pair, _USERINFO.sub(rf"\g<head>:{MASK}@", message))


def redact_url(address: str) -> str:
    """A URL with its password and every option masked that is not known to be harmless. Idempotent."""
    head, mark, query = address.partition("?")
    head = _USERINFO.sub(rf"\g<head>:{MASK}@", head)
    return head + mark + "&".join(shown for shown, _ in map(_judge, query.split("&"))) if mark else head


def url_secrets(address: str) -> list[str]:
    """The values that :func:`redact_url` masks, as written and with percent escapes decoded."""
    found = [match["value"] for match in _USERINFO.finditer(address.partition("?")[0])]
    found += [value for _, value in map(_judge, address.partition("?")[2].split("&")) if value]
    return sorted(value for value in {*found, *map(unquote, found)} if len(value) >= _SHORTEST)


def environment_secrets(environment: Mapping[str, str]) -> list[str]:
    """The secrets in variables that sign-ins and proxies are read from; for a log filter."""
    found: list[str] = []
    for name, value in environment.items():
        if name.lower().endswith("_proxy"):
            found += url_secrets(value)
        elif name.startswith(_SIGN_IN) and _VARIABLE.fullmatch(name) and len(value) >= _SHORTEST:
            found.append(value)
    return found


def _judge(piece: str) -> tuple[str, str]:
    """A query parameter as it may be shown, and what was hidden. A misspelled "acess_key" is hidden too."""
    key, equals, value = piece.partition("=")
    if equals and unquote(key).strip().lower() in _HARMLESS:
        return redact(piece), ""
    if equals:
        return f"{key}={MASK}", value
    # The rest of a secret with an '&' in it, or nothing at all.
    return (MASK, piece) if piece else ("", "")


def _mask_pair(match: re.Match[str]) -> str:
    value = match["value"]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{match['head']}{quote}{MASK}{quote}"
