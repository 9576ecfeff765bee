"""Destinations to test: a directory, and a real S3 server that is started once."""

import itertools

import pytest

from mover.target.paths import is_temporary
from mover.target.url import open_target

_numbers = itertools.count(1)


@pytest.fixture(params=["file"])
async def target(request, tmp_path):
    opened = await open_target((tmp_path / "dest").as_uri())
    try:
        yield opened
    finally:
        await opened.aclose()


@pytest.fixture
def base():
    """A prefix of its own for each test: the bucket is shared."""
    return f"test{next(_numbers)}"


@pytest.fixture
def unfinished(target, base):
    """What unfinished writes left under ``base``."""

    async def look():
        found = []
        for _root, _dirs, files in (target._tree and __import__("os").walk(f"{target.path}/{base}")) or []:
            found += [name for name in files if is_temporary(name)]
        return found

    return look
