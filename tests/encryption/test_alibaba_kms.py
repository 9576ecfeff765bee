"""The client of Alibaba Cloud's KMS against a server that checks its signatures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kms_server import KmsServer, kms_server

from mover.encryption.alibaba_kms import AlibabaKms, signature
from mover.encryption.given import open_kms
from mover.encryption.keyring import OpenRing
from mover.encryption.sources import KmsSource
from mover.errors import ConfigError, MoverError, PreconditionError, UnreachableError


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsServer]:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAITEST")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret-of-the-tests")
    monkeypatch.setenv("ALIBABA_CLOUD_SECURITY_TOKEN", "token/of+the=tests")
    with kms_server("one", "two") as server:
        yield server


def url(kms: KmsServer, key_id: str) -> str:
    return kms.kms_url(key_id, "alibaba-kms")


def test_the_signature_is_that_of_the_documentation() -> None:
    """The worked example of Alibaba Cloud's "RPC signature" page (ECS DescribeRegions)."""
    parameters = {
        "Timestamp": "2016-02-23T12:46:24Z",
        "Format": "XML",
        "AccessKeyId": "testid",
        "Action": "DescribeRegions",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
        "Version": "2014-05-26",
        "SignatureVersion": "1.0",
    }
    assert signature("GET", parameters, "testsecret") == "OLeaidS1JvxuMvnyHOwuJ+uX5qY="


async def test_a_ring_in_a_key_service(kms: KmsServer) -> None:
    source = KmsSource(open_kms(url(kms, "one")))
    made = await OpenRing.create((source,), 1)
    again = await OpenRing.unlock(made.ring, (source,))
    assert again.keys().current == made.keys().current
    assert kms.calls == [("Encrypt", "one"), ("Decrypt", "one")]


@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        ((403, "Forbidden.KeyNotFound"), PreconditionError),
        ((400, "Throttling.User"), UnreachableError),
        ((503, "ServiceUnavailableTemporary"), UnreachableError),
    ],
)
async def test_a_service_that_refuses(kms: KmsServer, failing: tuple[int, str], expected: type[MoverError]) -> None:
    kms.failing = failing
    with pytest.raises(expected, match=failing[1]) as caught:
        await AlibabaKms(url(kms, "one")).encrypt(b"key")
    assert "secret-of-the-tests" not in str(caught.value.__dict__)


async def test_a_wrong_secret_and_none(kms: KmsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "another")
    with pytest.raises(PreconditionError, match="SignatureDoesNotMatch"):
        await AlibabaKms(url(kms, "one")).encrypt(b"key")
    monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
    with pytest.raises(PreconditionError, match="no credentials"):
        await AlibabaKms(url(kms, "one")).encrypt(b"key")


async def test_a_service_that_is_not_there(kms: KmsServer) -> None:
    with pytest.raises(UnreachableError, match="refused"):
        await AlibabaKms("alibaba-kms://one?endpoint=http://127.0.0.1:9").encrypt(b"key")


@pytest.mark.parametrize("address", ["alibaba-kms://", "alibaba-kms://one", "alibaba-kms://one?access_key=x"])
def test_urls_that_are_refused(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AlibabaKms(address)
    assert "access_key" not in caught.value.message
