"""What is said to an object store and what it says, without one: XML, requests, confirmations, failures."""

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.kernel import crc64_xz
from mover.target.profiles import CONFIRMATIONS, PROFILES
from mover.target.s3_confirm import confirmation_named, crc32c
from mover.target.s3_errors import Failure
from mover.target.s3_operations import OPERATIONS, make_request
from mover.target.s3_xml import parse_xml

HOSTILE = [
    b"",
    b"<a>",
    b"<a></b>",
    b"not xml",
    b"<a/><b/>",
    b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
    b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
    b"<a>&unknown;</a>",
    b"<a>" * 1000 + b"</a>" * 1000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_xml(data):
    with pytest.raises(ValueError, match="XML"):
        parse_xml(data)


@given(st.binary(max_size=200))
def test_any_bytes_as_xml(data):
    try:
        parse_xml(b"<a>" + data + b"</a>")
    except ValueError:
        pass


def test_xml_with_and_without_namespaces():
    for data in (
        b'<A xmlns="http://x/"><B>1</B><B>2&amp;3</B></A>',
        b'<n:A xmlns:n="u"><n:B>1</n:B><n:B>2&amp;3</n:B></n:A>',
    ):
        root = parse_xml(data)
        assert (root.name, [child.text for child in root.all("B")], root.text_of("C")) == ("A", ["1", "2&3"], None)


def test_a_listing():
    page = parse_xml(
        b"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
        b"<Contents><Key>a+b%2Bc%0A</Key><Size>7</Size><LastModified>2026-01-02T03:04:05.678Z</LastModified></Contents>"
        b"<NextContinuationToken>t&lt;</NextContinuationToken></ListBucketResult>"
    )
    answer = OPERATIONS["list_objects_v2"].answer(page)
    assert answer["Contents"][0]["Key"] == "a b+c\n"
    assert answer["Contents"][0]["LastModified"].timestamp() == 1767323045.678
    assert (answer["IsTruncated"], answer["NextContinuationToken"]) == (True, "t<")


def test_a_request():
    parameters = {"Prefix": "a b/ü~", "ContinuationToken": "x/+=", "MaxKeys": 1}
    request = make_request(OPERATIONS["list_objects_v2"], parameters, None)
    assert request.query == (
        "continuation-token=x%2F%2B%3D&encoding-type=url&list-type=2&max-keys=1&prefix=a%20b%2F%C3%BC~"
    )
    with pytest.raises(KeyError):
        make_request(OPERATIONS["put_object"], {"Key": "k", "Unknown": 1}, None)


@pytest.mark.parametrize("name", CONFIRMATIONS)
def test_what_refutes_a_body(name):
    way = confirmation_named(name, PROFILES["aws"])
    content = memoryview(os.urandom(100_000))
    mark = way.mark(content)
    assert mark.size == len(content)
    right, wrong = {
        "crc32c": ({"ChecksumCRC32C": way.asks(mark).get("ChecksumCRC32C")}, {"ChecksumCRC32C": "AAAAAA=="}),
        "crc64": (_told(crc64_xz(content)), _told(crc64_xz(content) ^ 1)),
        "md5": ({"ETag": f'"{hashlib.md5(content).hexdigest()}"'}, {"ETag": f'"{"0" * 32}"'}),
        "read-back": ({}, None),
    }[name]
    assert way.refutes(mark, right) is None
    assert wrong is None or way.refutes(mark, wrong)


def _told(crc):
    return {"ResponseMetadata": {"HTTPHeaders": {"x-oss-hash-crc64ecma": str(crc)}}}


def test_what_refutes_an_object_of_parts():
    contents = [os.urandom(size) for size in (1000, 5000, 3)]
    whole = b"".join(contents)

    def look(name, answer, found):
        way = confirmation_named(name, PROFILES["aws"])
        return way.refutes_whole([way.mark(memoryview(each)) for each in contents], answer, found)

    assert look("crc64", _told(crc64_xz(whole)), {}) is None
    assert look("crc64", {}, _told(crc64_xz(whole))) is None
    assert look("crc64", _told(crc64_xz(whole)), _told(1))
    assert look("crc64", {}, {})
    etag = hashlib.md5(b"".join(hashlib.md5(each).digest() for each in contents)).hexdigest()
    assert look("md5", {}, {"ETag": f'"{etag}-3"'}) is None
    assert look("md5", {}, {"ETag": f'"{etag}-2"'})
    assert look("md5", {}, {"ETag": '"anything"', "ServerSideEncryption": "aws:kms"}) is None
    assert look("crc32c", {}, {}) is None
    assert look("crc32c", {"ChecksumCRC32C": "AAAAAA==-3"}, {})


def test_crc32c_is_the_one_of_the_world():
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7.0), (" 12 ", 12.0), ("", 0.0), ("soon", 0.0), ("-3", 0.0), ("1e9", 0.0)]
)
def test_retry_after(text, seconds):
    assert Failure.said("SlowDown", 503, "", {"retry-after": text}).retry_after == seconds


def test_retry_after_as_a_date():
    past = Failure.said("", 503, "", {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})
    future = Failure.said("", 503, "", {"retry-after": "Wed, 21 Oct 2065 07:28:00 GMT"})
    assert past.retry_after == 0.0
    assert future.retry_after > 1e8
