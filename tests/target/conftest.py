"""Destinations to test: a directory, and a real S3 server that is started once."""

import itertools
import os
from contextlib import ExitStack

import pytest
import pytest_asyncio
from fuse_mount import fuse_mount
from nfs_server import nfs_mount, nfs_server
from oss_rules import LOCKING
from oss_server import localhosts, oss_server  # noqa: F401

from mover.target.paths import is_temporary
from mover.target.url import open_target

_numbers = itertools.count(1)


@pytest.fixture
def keys(weed, monkeypatch):
    """The server's keys in the environment, where a user would put them."""
    for name, value in weed.environment.items():
        monkeypatch.setenv(name, value)
    return weed


@pytest.fixture(scope="session")
def nfs(tmp_path_factory):
    """An NFS 4.1 server."""
    with nfs_server(tmp_path_factory.mktemp("ganesha")) as server:
        yield server


@pytest.fixture(scope="session")
def oss():
    """A store with the rules of OSS."""
    with oss_server() as server:
        yield server


@pytest.fixture(scope="session")
def locking():
    """A store with Amazon's rules whose bucket locks objects and keeps versions."""
    with oss_server(LOCKING) as server:
        yield server


@pytest_asyncio.fixture(
    params=[
        "file",
        "file-fuse",  # no renaming without replacing, and a name for each deleted file in use
        "file-nfs41",  # the same before a real server
        "weed-seaweedfs-fast",
        "weed-generic-fast",
        "weed-seaweedfs-aiobotocore",
        "oss-oss-fast",
        "juicefs-generic-fast",
        "rclone-generic-fast",
    ],
    scope="module",
    loop_scope="module",
)
async def target(request, tmp_path_factory):
    """One open destination per kind and module: making an S3 client costs half a second. Tests use ``base``."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        if request.param == "file":
            url = (tmp_path_factory.mktemp("file") / "dest").as_uri()
        elif request.param == "file-fuse":
            url = (stack.enter_context(fuse_mount(tmp_path_factory.mktemp("fuse"))).path / "dest").as_uri()
        elif request.param == "file-nfs41":
            nfs = request.getfixturevalue("nfs")
            url = (stack.enter_context(nfs_mount(tmp_path_factory.mktemp("nfs") / "mount", nfs)).path / "dest").as_uri()
        else:
            name, profile, sender = request.param.split("-")
            server = request.getfixturevalue(name)
            for variable, value in server.environment.items():
                patch.setenv(variable, value)
            url = server.url("pre fix/root", profile=profile, sender=sender)
        opened = await open_target(url)
        opened.served_by = request.param.split("-")[0]
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
        client = request.getfixturevalue(target.served_by).client()
        try:
            uploads = client.list_multipart_uploads(Bucket=target.destination.bucket).get("Uploads", [])
            return [item["Key"] for item in uploads if f"/{base}/" in item["Key"]]
        finally:
            client.close()

    return look
