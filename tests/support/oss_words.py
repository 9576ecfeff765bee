"""The words of a store's answers: XML, and checksums as headers have them."""

from base64 import b64decode, b64encode
from datetime import UTC, datetime
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import google_crc32c


def crc32c_of(data):
    return google_crc32c.Checksum(bytes(data)).digest()


def decoded(text):
    return b64decode(text, validate=True)


def encoded(raw):
    return b64encode(raw).decode()


def iso(seconds):
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def tag(name, *children):
    """An element; a child that is a string in XML already is taken as it is."""
    return f"<{name}>{''.join(children)}</{name}>"


def texts(**values):
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in values.items())


def error(code, message, **more):
    return tag("Error", texts(Code=code, Message=message, RequestId="0123456789ABCDEF", HostId="localhost", **more))


def listing(bucket, prefix, objects, more, most, token, url):
    """ListObjectsV2. ``objects``: (key, Stored)."""

    def shown(key):
        return quote(key, safe="-_.~*") if url else key

    items = [
        tag(
            "Contents",
            texts(
                Key=shown(key),
                LastModified=iso(stored.modified),
                ETag=f'"{stored.etag}"',
                Type=stored.kind,
                Size=len(stored.data),
                StorageClass=stored.kept.get("x-amz-storage-class", "Standard"),
            ),
        )
        for key, stored in objects
    ]
    head = texts(Name=bucket, Prefix=shown(prefix), MaxKeys=most, KeyCount=len(items))
    head += texts(IsTruncated=str(more).lower(), **({"EncodingType": "url"} if url else {}))
    if more:
        head += texts(NextContinuationToken=token)
    return tag("ListBucketResult", head, *items)


def uploads(bucket, found, more):
    items = [tag("Upload", texts(Key=each.key, UploadId=each.upload_id, Initiated=iso(each.begun))) for each in found]
    head = texts(Bucket=bucket, IsTruncated=str(more).lower())
    if more:
        head += texts(NextKeyMarker=found[-1].key, NextUploadIdMarker=found[-1].upload_id)
    return tag("ListMultipartUploadsResult", head, *items)


def read(document, item, *names):
    """The texts of ``names`` in each ``item`` below the root, "" for what is not there. Raises ValueError."""
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as wrong:
        raise ValueError("not XML") from wrong
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return [tuple((child.findtext(name) or "").strip('"') for name in names) for child in root.iter(item)]


def texts_of(document, name):
    return [text for (text,) in read(document, name, ".")]
