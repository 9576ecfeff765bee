"""What must not be shown: which names carry secrets, and how texts and URLs look without them.

Used by settings, the log filter and every message that quotes a URL.
"""

from __future__ import annotations

import re

MASK = "***"

# A parameter, key or header whose name ends like this carries a secret. Names of files that hold one do not.
_NAME = (
    r"(?:[\w-]*(?:access[_-]?key|secret|secret[_-]?(?:access[_-]?)?key|password|passwd|passphrase"
    r"|(?:session|security|auth|bearer)[_-]?token|token|signature|authorization|credential)"
    r"|sk|pwd)"
)
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
    """A URL without its password and without secret query parameters. Idempotent."""
    return redact(address)


def _mask_pair(match: re.Match[str]) -> str:
    value = match["value"]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{match['head']}{quote}{MASK}{quote}"
