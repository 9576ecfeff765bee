"""What doctor tries at an object store beside the contract of a destination: what its profile says, and the sign-in."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable

from mover.errors import MoverError
from mover.rootservice.doctor_checks import SKEW_FAILS, SKEW_WARNS, Check, State, failed, size_text
from mover.target import s3_probe
from mover.target.profiles import Profile
from mover.target.s3_client import S3Client
from mover.target.s3_errors import span
from mover.target.url import ObjectDestination

_PLACES = {
    "url": "the URL",
    "env": "variables of the environment",
    "shared-credentials-file": "the AWS credentials file",
    "config-file": "the AWS configuration file",
    "assume-role": "a role that is assumed",
    "assume-role-with-web-identity": "a web identity",
    "iam-role": "the role of the EC2 instance",
    "container-role": "the role of the container",
    "custom-process": "a credential process",
    "sso": "single sign-on",
    "ecs-ram-role": "the RAM role of the ECS instance",
    "alibaba-oidc": "the role of the service account (OIDC)",
    "alibaba-uri": "ALIBABA_CLOUD_CREDENTIALS_URI",
    "cvm-role": "the role of the CVM instance",
}
_SAVE = "have `mover doctor --save FILE` write a profile, and use profile=FILE in the URL"


class ObjectsExam:
    """The checks of one bucket. ``profile`` is the URL's, with what was found in the place of what it says."""

    def __init__(self, client: S3Client, base: str) -> None:
        self._client = client
        self._base = base
        self._said = client.profile
        destination = client.destination
        self.profile: Profile = dataclasses.replace(
            client.profile, addressing=destination.addressing, signature=destination.signature
        )

    async def before(self) -> AsyncIterator[Check]:
        """What is known once the bucket has answered."""
        sign_in = self._client.sign_in
        place = _PLACES.get(sign_in.method, sign_in.method)
        yield _ok("sign-in", f"with keys from {place}{', which end and are renewed' if sign_in.temporary else ''}")
        yield _clock(self._client.skew)
        destination = self._client.destination
        region = f", region {destination.region}" if destination.region else ""
        yield _ok("address", f"{destination.addressing} addressing{region}, profile {self._said.name}")

    async def checks(self) -> AsyncIterator[Check]:
        """What the profile says, tried."""
        probes: tuple[tuple[str, Callable[[], Awaitable[Check]]], ...] = (
            ("conditional", self._conditional),
            ("checksums", self._checksums),
            ("parts", self._parts),
            ("order", self._order),
        )
        if self._client.destination.objects.lock_mode:
            probes = (*probes, ("object lock", self._lock))
        for name, probe in probes:
            try:
                yield await probe()
            except MoverError as error:
                yield failed("destination", name, error)

    async def _conditional(self) -> Check:
        whole = await s3_probe.honours_condition(self._client, self._base)
        parts = await s3_probe.honours_condition_of_parts(self._client, self._base)
        self.profile = dataclasses.replace(self.profile, conditional_put=whole and parts)
        answers = {True: "honoured", False: "not honoured"}
        detail = f"asking for a new name ({self._said.exclusive}) is {answers[whole]}, of parts {answers[parts]}"
        check = self._judge("conditional", detail, bad=self._said.conditional_put and not (whole and parts))
        if whole and parts and not self._said.conditional_put:
            return dataclasses.replace(check, advice=f"profile {self._said.name} does not count on it; {_SAVE}")
        return check

    async def _checksums(self) -> Check:
        found = await s3_probe.find_confirmation(self._client, self._base)
        self.profile = dataclasses.replace(self.profile, confirm=(found,))
        used = (await self._client.confirmation()).name
        ranks = ("crc32c", "crc64", "md5", "read-back")
        detail = f"best is {found}, used is {used}"
        # A way that the store does not know would fail each large file; a weaker one than it has is a choice.
        return self._judge("checksums", detail, bad=ranks.index(used) < ranks.index(found))

    async def _parts(self) -> Check:
        found = await s3_probe.find_parts(self._client, self._base)
        said = self._said
        self.profile = dataclasses.replace(
            self.profile, min_part=found.least, max_parts=found.most, multipart_etag=found.etag
        )
        etag = "the MD5 of their MD5s" if found.etag else "of its own kind"
        detail = f"of {size_text(found.least)} and more, up to number {found.most}; the ETag is {etag}"
        bad = found.least > said.min_part or found.most < said.max_parts or (said.multipart_etag and not found.etag)
        return self._judge("parts", detail, bad=bad)

    async def _order(self) -> Check:
        found = await s3_probe.lists_in_order(self._client, self._base)
        self.profile = dataclasses.replace(self.profile, sorted_list=found)
        detail = "a listing is in the order of UTF-8 bytes" if found else "a listing has an order of its own"
        return self._judge("order", detail, bad=self._said.sorted_list and not found)

    async def _lock(self) -> Check:
        if await s3_probe.locks_objects(self._client):
            return _ok("object lock", "the bucket locks objects: a probe of that would stay, and is left out")
        advice = "make a bucket with object lock, or leave object_lock out"
        return Check("destination", "object lock", State.FAIL, "the bucket was made without object lock", advice)

    def _judge(self, name: str, detail: str, *, bad: bool) -> Check:
        if not bad:
            return _ok(name, detail)
        detail = f"{detail}: not what profile {self._said.name} says"
        return Check("destination", name, State.FAIL, detail, _SAVE)


async def other_addressing(destination: ObjectDestination) -> Check | None:
    """A check that says so when a bucket that did not answer does with the other way of addressing."""
    other = "path" if destination.addressing == "virtual" else "virtual"
    client = S3Client(dataclasses.replace(destination, addressing=other), attempts=1)
    try:
        await client.open()
        await client.call("list_objects_v2", "", "reach", MaxKeys=1)
    except MoverError:
        return None
    finally:
        await client.aclose()
    advice = f"add addressing={other} to the URL"
    return Check("destination", "address", State.FAIL, f"it answers with {other} addressing", advice)


def _clock(skew: float | None) -> Check:
    if skew is None:
        return Check("destination", "clock", State.WARN, "the store says no time in its answers", "keep NTP running")
    detail = f"the store's clock is {span(skew)} {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) < SKEW_WARNS:
        return _ok("clock", "it agrees with the store's")
    state = State.FAIL if abs(skew) > SKEW_FAILS else State.WARN
    return Check("destination", "clock", state, detail, "set this host's clock, or the store's: use NTP")


def _ok(name: str, detail: str) -> Check:
    return Check("destination", name, State.OK, detail)
