"""How S3 implementations differ, as one setting: ``profile=aws|oss|cos|minio|seaweedfs|generic``.

Sources: the limits Amazon publishes for S3; Alibaba Cloud's "Use AWS SDKs to access OSS" and its error pages
0017-00000804 (chunked bodies are refused) and 0002-00000427. The test suite runs on SeaweedFS, which refuses a body or
a part whose CRC-32C is another; nothing here was tried against a real OSS, COS, MinIO or Amazon endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
CONFIRMATIONS = ("crc32c", "crc64", "md5", "read-back")


@dataclass(frozen=True, slots=True)
class Profile:
    """What may be relied upon at one kind of store.

    ``conditional_put``: ``If-None-Match: *`` is honoured, for PUT and for CompleteMultipartUpload. It is sent to every
    store whose profile says ``send_conditional``: one that does not know it ignores it, and the name is looked at
    before and after as well.
    ``sorted_list``: ListObjectsV2 is in the order of UTF-8 bytes, as the API says; otherwise a listing is collected
    and sorted.
    ``confirm``: how the bytes of a large file are confirmed (:mod:`mover.target.s3_confirm`); of several the first that
    the store passes a test for, the last without one.
    ``multipart_etag``: the ETag of a multipart object is the MD5 of its parts' MD5s, "-" and their number.
    """

    name: str
    device_type: str
    addressing: str  # "virtual" or "path"
    conditional_put: bool
    send_conditional: bool
    sorted_list: bool
    multipart_etag: bool
    needs_endpoint: bool
    confirm: tuple[str, ...]
    default_region: str | None = None  # None: from the chain
    min_part: int = 5 * MIB
    max_parts: int = 10_000
    max_object: int = 5 << 40
    signature: str = "s3v4"


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("aws", "S3", "virtual", True, True, True, True, False, ("crc32c",)),
        # OSS knows only virtual-hosted addresses, and x-oss-forbid-overwrite in the place of If-None-Match.
        Profile("oss", "OSS", "virtual", False, False, True, False, True, ("crc64", "md5"), min_part=MIB),
        Profile("cos", "COS", "virtual", False, False, True, False, True, ("crc64", "md5"), min_part=MIB),
        Profile("minio", "S3", "path", True, True, True, True, True, ("crc32c", "md5"), default_region="us-east-1"),
        # SeaweedFS lists directory by directory: "a/x" comes before "a.x", which is not the order of the keys.
        Profile("seaweedfs", "S3", "path", True, True, False, True, True, ("crc32c",), default_region="us-east-1"),
        Profile(
            "generic", "S3", "path", False, True, False, False, True, ("crc32c", "md5"), default_region="us-east-1"
        ),
    )
}
