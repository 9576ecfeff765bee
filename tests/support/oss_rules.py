"""What one kind of object store takes and refuses, as data for tests/support/oss_server.py.

Sources: Alibaba Cloud's "Compatibility with Amazon S3", "Limits", and the pages of its error codes 0016-00000606 (a
digest for DeleteObjects), 0017-00000804 (aws-chunked), 0048-00000101 and FileAlreadyExists; the S3 API reference.
"""

from dataclasses import dataclass, replace

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Rules:
    """``dialect`` is whose words its errors are in: "oss" or "s3"."""

    dialect: str = "oss"
    path_style: bool = False
    chunked: bool = False  # aws-chunked bodies and trailers
    expect: bool = False  # "Expect: 100-continue"
    if_none_match: str = "refused"  # or "honoured", "ignored"
    forbid_overwrite: bool = True
    delete_needs_md5: bool = True
    delete_objects: bool = True  # the store knows DeleteObjects
    delete_most: int = 1000
    crc64: bool = True  # says x-oss-hash-crc64ecma
    md5: bool = True  # compares Content-MD5
    etag: bool = True  # the MD5 of what came in one PUT
    crc32c: bool = False  # compares x-amz-checksum-crc32c and repeats it
    multipart_etag: bool = False  # the MD5 of the parts' MD5s
    append: bool = True
    versions: bool = False  # a deletion leaves the version behind, as a bucket with object lock has it
    lock: bool = False
    metadata: bool = True  # keeps what users say of an object
    deaf: bool = False  # takes options of objects and forgets them
    list_most: int = 1000
    parts_most: int = 10_000
    part_least: int = 100 * KIB
    object_most: int = 5 * GIB  # of one PUT or part
    regions: tuple[str, ...] = ("oss-cn-test", "cn-test")
    signatures: tuple[str, ...] = ("v4", "v2")


OSS = Rules()
AMAZON = Rules(
    dialect="s3",
    path_style=True,
    chunked=True,
    expect=True,
    if_none_match="honoured",
    forbid_overwrite=False,
    crc64=False,
    crc32c=True,
    multipart_etag=True,
    append=False,
    part_least=5 * MIB,
    regions=("us-east-1",),
)
LOCKING = replace(AMAZON, versions=True, lock=True)
