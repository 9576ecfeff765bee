"""Signatures of requests as a store checks them, written from the published rules and not from a client's code.

Sources: "Signature Version 4 signing process" and "Signing and authenticating REST requests" (version 2) of Amazon.
"""

import hashlib
import hmac
import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

# Query names that are part of what version 2 signs.
_SUBRESOURCES = frozenset(
    {"acl", "append", "delete", "lifecycle", "location", "object-lock", "partNumber", "position", "retention"}
    | {"tagging", "uploadId", "uploads", "versionId", "versioning", "versions"}
)
_V4 = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})\Z"
)
_SKEW = timedelta(minutes=15)


class Refused(Exception):
    """``code`` is the error's name in S3 and in OSS."""

    def __init__(self, status, code, message="", **more):
        super().__init__(code)
        self.status, self.code, self.message, self.more = status, code, message, more


def pairs(query):
    """The raw query as decoded (name, value) pairs; a "+" is itself."""
    return [(unquote(n), unquote(v)) for n, _, v in (piece.partition("=") for piece in query.split("&") if piece)]


def verify(method, raw_path, query, headers, bucket_path, keys, rules, body):
    """Raises Refused for a request that is not signed as it must be.

    Args:
        headers: lower-case names.
        bucket_path: "/bucket/key" also where the bucket is in the host, as version 2 has it; raw.
        keys: access id to secret.
    """
    words = headers.get("authorization", "")
    if words.startswith("AWS4-"):
        _verify_v4(method, raw_path, query, headers, words, keys, rules, body)
    elif words.startswith("AWS ") and "v2" in rules.signatures:
        _verify_v2(method, bucket_path, query, headers, words, keys)
    else:
        raise Refused(403, "AccessDenied", "the request is not signed in a way that this store knows")


def _verify_v4(method, raw_path, query, headers, words, keys, rules, body):
    found = _V4.match(words)
    if found is None or "v4" not in rules.signatures:
        raise Refused(400, "AuthorizationHeaderMalformed")
    access_id, day, region, service, names, signature = found.groups()
    if access_id not in keys:
        raise Refused(403, "InvalidAccessKeyId", "the access key is not known here")
    if region not in rules.regions or service != "s3":
        raise Refused(400, "AuthorizationHeaderMalformed", f"the region {region} is wrong")
    moment = headers.get("x-amz-date", "")
    _fresh(datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) if moment else None)
    signed = names.split(";")
    missing = [name for name in headers if name.startswith(("x-amz-", "x-oss-")) and name not in signed]
    if "host" not in signed or signed != sorted(signed) or missing:
        raise Refused(403, "SignatureDoesNotMatch", f"not signed: {missing}")
    payload = headers.get("x-amz-content-sha256", "")
    if payload != "UNSIGNED-PAYLOAD" and payload != hashlib.sha256(body).hexdigest():
        raise Refused(400, "XAmzContentSHA256Mismatch", "the body is not the one that was signed")
    listed = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs(query))
    lines = [
        method,
        quote(unquote(raw_path), safe="-_.~/"),
        "&".join(f"{name}={value}" for name, value in listed),
        *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed),
        "",
        names,
        payload,
    ]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{moment}\n{day}/{region}/{service}/aws4_request\n{digest}"
    key = f"AWS4{keys[access_id]}".encode()
    for step in (day, region, service, "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    if not moment.startswith(day) or not hmac.compare_digest(
        hmac.digest(key, text.encode(), "sha256").hex(), signature
    ):
        raise Refused(403, "SignatureDoesNotMatch", "the signature is not the one that was calculated here")


def _verify_v2(method, bucket_path, query, headers, words, keys):
    access_id, _, signature = words.removeprefix("AWS ").partition(":")
    if access_id not in keys:
        raise Refused(403, "InvalidAccessKeyId", "the access key is not known here")
    moment = headers.get("x-amz-date") or headers.get("date", "")
    _fresh(datetime.strptime(moment, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC) if moment else None)
    amz = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers) if name.startswith("x-amz-"))
    subs = [(name, value) for name, value in sorted(pairs(query)) if name in _SUBRESOURCES]
    resource = bucket_path + ("?" + "&".join(f"{n}={v}" if v else n for n, v in subs) if subs else "")
    date = "" if "x-amz-date" in headers else headers.get("date", "")
    head = [method, headers.get("content-md5", ""), headers.get("content-type", ""), date]
    text = "\n".join(head) + "\n" + amz + resource
    ours = b64encode(hmac.digest(keys[access_id].encode(), text.encode(), "sha1")).decode()
    if not hmac.compare_digest(ours, signature):
        raise Refused(403, "SignatureDoesNotMatch", "the signature is not the one that was calculated here")


def _fresh(moment):
    if moment is None:
        raise Refused(403, "AccessDenied", "the request has no date")
    if abs(datetime.now(UTC) - moment) > _SKEW:
        raise Refused(403, "RequestTimeTooSkewed", "the clocks differ")
