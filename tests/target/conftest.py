"""Destinations to test: a directory, and a real S3 server that is started once."""

import itertools
import os
from contextlib import ExitStack

import pytest
import pytest_asyncio
from fuse_mount import fuse_mount
from weed import weed_server

from mover.target.paths import is_temporary
from mover.target.url import open_target

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def weed(tmp_path_factory):
    """A SeaweedFS server, started by the first test that needs it."""
    with weed_server(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture
def keys(weed, monkeypatch):
    """The server's keys in the environment, where a user would put them."""
    for name, value in weed.environment.items():
        monkeypatch.setenv(name, value)
    return weed


@pytest_asyncio.fixture(
    params=["file", "file-fuse", "s3-seaweedfs-fast", "s3-generic-fast", "s3-seaweedfs-aiobotocore"],
    scope="module",
    loop_scope="module",
)
async def target(request, tmp_path_factory):
    """One open destination per kind and module: making an S3 client costs half a second. Tests use ``base``."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        if request.param == "file":
            url = (tmp_path_factory.mktemp("file") / "dest").as_uri()
        elif request.param == "file-fuse":  # no renaming without replacing, and a name for each deleted file in use
            url = (stack.enter_context(fuse_mount(tmp_path_factory.mktemp("fuse"))).path / "dest").as_uri()
        else:
            weed = request.getfixturevalue("weed")
            for name, value in weed.environment.items():
                patch.setenv(name, value)
            _, profile, sender = request.param.split("-")
            url = weed.url("pre fix/root", profile=profile, sender=sender)
        opened = await open_target(url)
        try:
            yield opened
        finally:
            await opened.aclose()


@pytest.fixture
def base():
    """A prefix of its own for each test: the bucket is shared."""
    return f"test{next(_numbers)}"


@pytest.fixture
def unfinished(request, target, base):
    """What unfinished writes left under ``base``: temporary files or multipart uploads."""

    async def look():
        if target.capabilities.append:
            return [name for _, _, names in os.walk(f"{target.path}/{base}") for name in names if is_temporary(name)]
        client = request.getfixturevalue("weed").client()
        try:
            uploads = client.list_multipart_uploads(Bucket=target.destination.bucket).get("Uploads", [])
            return [item["Key"] for item in uploads if f"/{base}/" in item["Key"]]
        finally:
            client.close()

    return look
