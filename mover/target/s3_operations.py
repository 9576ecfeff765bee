"""The S3 operations that a destination needs, as data: how each becomes an HTTP request, and its answer a dictionary.

Parameters and answers have botocore's names, so that both senders speak alike.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote_plus
from xml.sax.saxutils import escape

from mover.target.s3_xml import Element


@dataclass(frozen=True, slots=True)
class Operation:
    """``query`` is sent as it is; ``document`` makes the body, ``answer`` reads the one that comes back.

    ``digest``: the body must go with its MD5. ``root``: the name of the document that ``answer`` reads. ``proof``: a
    success says at least one of these; what does not is an answer of something else on the way, such as a proxy.
    """

    method: str
    query: tuple[tuple[str, str], ...] = ()
    document: Callable[[Mapping[str, Any]], bytes] | None = None
    answer: Callable[[Element], dict[str, Any]] | None = None
    digest: bool = False
    changes: bool = False  # what others see
    root: str = ""
    proof: tuple[str, ...] = ()

    def proven(self, answer: Mapping[str, Any]) -> bool:
        """Whether it is the store's own word that this was done."""
        return not self.proof or any(answer.get(name) is not None for name in self.proof)


@dataclass(slots=True)
class Request:
    """An operation with its parameters, before it is addressed and signed."""

    method: str
    key: str | None
    query: str  # encoded, in the order of its names as signatures want it
    headers: dict[str, str]  # lower-case names
    body: memoryview


_QUERY = {
    "UploadId": "uploadId",
    "PartNumber": "partNumber",
    "Prefix": "prefix",
    "MaxKeys": "max-keys",
    "ContinuationToken": "continuation-token",
    "KeyMarker": "key-marker",
    "UploadIdMarker": "upload-id-marker",
    "VersionId": "versionId",
}
HEADERS = {
    "ContentMD5": "content-md5",
    "IfNoneMatch": "if-none-match",
    "IfMatch": "if-match",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "StorageClass": "x-amz-storage-class",
    "Tagging": "x-amz-tagging",
    "ObjectLockMode": "x-amz-object-lock-mode",
    "ObjectLockRetainUntilDate": "x-amz-object-lock-retain-until-date",
    "ForbidOverwrite": "x-oss-forbid-overwrite",
    "ForbidOverwriteCOS": "x-cos-forbid-overwrite",
    "Range": "range",
    "ChecksumCRC32C": "x-amz-checksum-crc32c",
    "ChecksumAlgorithm": "x-amz-checksum-algorithm",
    "ChecksumMode": "x-amz-checksum-mode",
}
BESIDE = frozenset({"ForbidOverwrite", "ForbidOverwriteCOS"})  # ours: botocore has no names for them
_ANSWERED = {
    "etag": "ETag",
    "content-range": "ContentRange",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-customer-algorithm": "SSECustomerAlgorithm",
    "x-amz-checksum-crc32c": "ChecksumCRC32C",
    "x-amz-object-lock-retain-until-date": "ObjectLockRetainUntilDate",
    "x-amz-version-id": "VersionId",
}
_META = "x-amz-meta-"


def _completed(parameters: Mapping[str, Any]) -> bytes:
    parts = "".join(
        f"<Part>{''.join(f'<{name}>{escape(str(value))}</{name}>' for name, value in part.items())}</Part>"
        for part in parameters["MultipartUpload"]["Parts"]
    )
    name = "CompleteMultipartUpload"
    return f'<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{parts}</{name}>'.encode()


def _to_delete(parameters: Mapping[str, Any]) -> bytes:
    items = "".join(f"<Object><Key>{escape(item['Key'])}</Key></Object>" for item in parameters["Delete"]["Objects"])
    quiet = str(bool(parameters["Delete"].get("Quiet"))).lower()
    name = "Delete"
    return f'<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>{quiet}</Quiet>{items}</{name}>'.encode()


def _deleted(root: Element) -> dict[str, Any]:
    encoded = root.text_of("EncodingType") == "url"

    def rows(kind: str, *names: str) -> list[dict[str, str]]:
        found = [{name: item.text_of(name) or "" for name in names} for item in root.all(kind)]
        for row in found if encoded else ():
            row["Key"] = unquote_plus(row["Key"])
        return found

    return {"Deleted": rows("Deleted", "Key"), "Errors": rows("Error", "Key", "Code", "Message")}


def content_md5(body: bytes | memoryview) -> str:
    """The Content-MD5 header of a body."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _texts(*names: str) -> Callable[[Element], dict[str, Any]]:
    return lambda root: {name: found for name in names if (found := root.text_of(name)) is not None}


def _page(root: Element) -> dict[str, Any]:
    encoded = root.text_of("EncodingType") == "url"
    contents = []
    for item in root.all("Contents"):
        key = item.text_of("Key") or ""
        contents.append(
            {
                "Key": unquote_plus(key) if encoded else key,
                "Size": int(item.text_of("Size") or ""),
                "LastModified": _moment(item.text_of("LastModified")),
            }
        )
    token = root.text_of("NextContinuationToken")
    return {
        "Contents": contents,
        "IsTruncated": root.text_of("IsTruncated") == "true",
        **({"NextContinuationToken": token} if token else {}),
    }


def _uploads(root: Element) -> dict[str, Any]:
    uploads = [
        {
            "Key": item.text_of("Key") or "",
            "UploadId": item.text_of("UploadId") or "",
            "Initiated": _moment(item.text_of("Initiated")),
        }
        for item in root.all("Upload")
    ]
    markers = {name: text for name in ("NextKeyMarker", "NextUploadIdMarker") if (text := root.text_of(name))}
    return {"Uploads": uploads, "IsTruncated": root.text_of("IsTruncated") == "true", **markers}


def _lock_configuration(root: Element) -> dict[str, Any]:
    return {"ObjectLockConfiguration": _texts("ObjectLockEnabled")(root)}


def _moment(text: str | None) -> datetime:
    """ISO 8601; UTC where no zone is said. ValueError for what is none."""
    moment = datetime.fromisoformat(text or "")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_OBJECT = ("ETag", "LastModified")  # no answer with an object is without both
OPERATIONS = {
    "put_object": Operation("PUT", changes=True, proof=("ETag",)),
    "create_multipart_upload": Operation(
        "POST",
        (("uploads", ""),),
        # Not the name of the document: rclone calls it InitiateMultipartUpload.
        answer=_texts("UploadId"),
        proof=("UploadId",),
    ),
    "upload_part": Operation("PUT", proof=("ETag",)),
    "complete_multipart_upload": Operation(
        "POST",
        document=_completed,
        answer=_texts("ETag", "ChecksumCRC32C"),
        changes=True,
        root="CompleteMultipartUploadResult",
        proof=("ETag",),
    ),
    "abort_multipart_upload": Operation("DELETE"),
    "head_object": Operation("HEAD", proof=_OBJECT),
    "get_object": Operation("GET", proof=_OBJECT),
    "list_objects_v2": Operation(
        "GET",
        (("list-type", "2"), ("encoding-type", "url")),
        answer=_page,
        root="ListBucketResult",
        proof=("IsTruncated", "Name", "KeyCount"),
    ),
    "list_multipart_uploads": Operation(
        "GET",
        (("uploads", ""),),
        answer=_uploads,
        root="ListMultipartUploadsResult",
        proof=("IsTruncated", "Bucket", "Uploads"),
    ),
    "get_object_lock_configuration": Operation("GET", (("object-lock", ""),), answer=_lock_configuration),
    "delete_object": Operation("DELETE", changes=True),
    "delete_objects": Operation(
        "POST", (("delete", ""),), document=_to_delete, answer=_deleted, digest=True, changes=True
    ),
}


def make_request(operation: Operation, parameters: Mapping[str, Any], body: memoryview | None) -> Request:
    """The request for an operation. KeyError for a parameter that is in no table: a bug of ours."""
    key: str | None = None
    query = list(operation.query)
    headers: dict[str, str] = {}
    for name, value in parameters.items():
        if name == "Key":
            key = value
        elif name == "Metadata":
            headers |= {f"{_META}{label}": text for label, text in value.items()}
        elif name in _QUERY:
            query.append((_QUERY[name], str(value)))
        elif name not in ("MultipartUpload", "Delete"):
            headers[HEADERS[name]] = str(value)
    if operation.document is not None:
        body = memoryview(operation.document(parameters))
    if operation.digest and body is not None:
        headers["content-md5"] = content_md5(body)
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query)
    # Without "=" where there is no value: the old signature knows subresources by their bare names.
    text = "&".join(f"{name}={value}" if value else name for name, value in encoded)
    return Request(operation.method, key, text, headers, memoryview(b"") if body is None else body)


def read_headers(headers: Mapping[str, str], status: int) -> dict[str, Any]:
    """What an answer's head says; ``headers`` with lower-case names. ValueError for a length that is none."""
    answer: dict[str, Any] = {"ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}}
    answer |= {name: headers[header] for header, name in _ANSWERED.items() if header in headers}
    answer["Metadata"] = {name[len(_META) :]: text for name, text in headers.items() if name.startswith(_META)}
    if "content-length" in headers:
        answer["ContentLength"] = int(headers["content-length"])
    if "last-modified" in headers:
        answer["LastModified"] = parsedate_to_datetime(headers["last-modified"])
    return answer
