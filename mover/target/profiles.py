"""How S3 implementations differ, as one setting: ``profile=aws|oss|cos|minio|seaweedfs|generic``.

Sources: the limits Amazon publishes for S3; Alibaba Cloud's "Use AWS SDKs to access OSS" and its error pages
0017-00000804 (chunked bodies are refused) and 0002-00000427. The test suite runs on SeaweedFS, which refuses a body or
a part whose CRC-32C is another, on JuiceFS's gateway and rclone's server, which ignore conditions and CRC-32Cs, and on
a store of its own with the rules that OSS publishes; nothing here was tried against a real OSS, COS, MinIO or Amazon
endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MIB = 1 << 20
CONFIRMATIONS = ("crc32c", "crc64", "md5", "read-back")

# Of a store that may be an old one: each is tried, and reading back is what is left.
_CRC32C = ("crc32c", "md5", "read-back")
_CRC64 = ("crc64", "md5", "read-back")


@dataclass(frozen=True, slots=True)
class Profile:
    """What may be relied upon at one kind of store.

    ``exclusive``: the header that asks for a name to be new, for PUT and for CompleteMultipartUpload:
    ``IfNoneMatch``, ``ForbidOverwrite`` (OSS) or ``ForbidOverwriteCOS``. A store that does not know its header ignores
    it, and OSS does so in buckets with versions; only where ``conditional_put`` says that it is honoured always, the
    name is not looked at before and after as well.
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
    exclusive: str
    sorted_list: bool
    multipart_etag: bool
    needs_endpoint: bool
    confirm: tuple[str, ...]
    default_region: str | None = "us-east-1"  # None: from the chain
    min_part: int = 5 * MIB
    max_parts: int = 10_000
    max_object: int = 5 << 40
    signature: str = "s3v4"
    delete_most: int = 1000  # keys of one DeleteObjects

    @property
    def must_be_new(self) -> dict[str, Any]:
        """The parameter that asks for a name to be new."""
        return {self.exclusive: "*" if self.exclusive == "IfNoneMatch" else "true"}


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("aws", "S3", "virtual", True, "IfNoneMatch", True, True, False, ("crc32c",), default_region=None),
        # OSS knows only virtual-hosted addresses, and answers If-None-Match with NotImplemented.
        Profile("oss", "OSS", "virtual", False, "ForbidOverwrite", True, False, True, _CRC64, None, MIB),
        Profile("cos", "COS", "virtual", False, "ForbidOverwriteCOS", True, False, True, _CRC64, None, MIB),
        Profile("minio", "S3", "path", True, "IfNoneMatch", True, True, True, _CRC32C),
        # SeaweedFS lists directory by directory: "a/x" comes before "a.x", which is not the order of the keys.
        Profile("seaweedfs", "S3", "path", True, "IfNoneMatch", False, True, True, ("crc32c",)),
        Profile(
            "generic",
            "S3",
            "path",
            False,
            "IfNoneMatch",
            False,
            False,
            True,
            _CRC32C,
            default_region="us-east-1",
        ),
    )
}
