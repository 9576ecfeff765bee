"""The client of Amazon's KMS against a server that speaks its protocol."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kms_server import KmsServer, kms_server

from mover.encryption.aws_kms import AwsKms
from mover.encryption.keyring import OpenRing
from mover.encryption.sources import KmsSource
from mover.errors import ConfigError, EncryptionKeyError, PreconditionError, UnreachableError


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsServer]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tests")
    with kms_server("one", "two") as server:
        yield server


async def test_a_ring_in_a_key_service(kms: KmsServer) -> None:
    source = KmsSource(AwsKms(kms.kms_url("one")))
    made = await OpenRing.create((source,), 1)
    assert made.kek.hex() not in str(made.ring.as_json())
    again = await OpenRing.unlock(made.ring, (source,))
    assert again.keys().current == made.keys().current
    assert kms.calls == [("Encrypt", "one"), ("Decrypt", "one")]


async def test_another_key_does_not_open_it(kms: KmsServer) -> None:
    ring = (await OpenRing.create((KmsSource(AwsKms(kms.kms_url("one"))),), 1)).ring
    with pytest.raises(EncryptionKeyError, match=ring.current.id.hex()):
        await OpenRing.unlock(ring, (KmsSource(AwsKms(kms.kms_url("two"))),))


@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        ((400, "AccessDeniedException"), PreconditionError),
        ((400, "DisabledException"), PreconditionError),
        ((500, "KMSInternalException"), UnreachableError),
    ],
)
async def test_a_service_that_refuses(kms: KmsServer, failing: tuple[int, str], expected: type[Exception]) -> None:
    kms.failing = failing
    with pytest.raises(expected, match=failing[1]) as caught:
        await AwsKms(kms.kms_url("one")).encrypt(b"key")
    assert "secret-of-the-tests" not in str(caught.value.__dict__)


async def test_a_key_that_is_not_there(kms: KmsServer) -> None:
    with pytest.raises(PreconditionError, match="NotFoundException"):
        await AwsKms(kms.kms_url("three")).encrypt(b"key")


async def test_a_service_that_is_not_there(kms: KmsServer) -> None:
    url = "aws-kms://one?region=eu-central-1&endpoint=http://127.0.0.1:9"
    with pytest.raises(UnreachableError, match="endpoint"):
        await AwsKms(url).encrypt(b"key")


@pytest.mark.parametrize(
    "url", ["aws-kms://", "aws-kms:one", "kms://one", "aws-kms://one?regon=x", "aws-kms://one?access_key=x"]
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AwsKms(url)
    assert "access_key" not in caught.value.message
