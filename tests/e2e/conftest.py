"""A real engine and a real destination per kind; the story is told once on each, and the tests look at what is left.

One event loop for all of it: engines and background processes live as long as the session.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
import pytest_asyncio
from e2e_story import tell
from mover_process import Mover
from site_of_tests import Site
from weed import weed_server

from mover.store.seekdb.server import SeekdbServer


def pytest_collection_modifyitems(items):
    """Everything here is end to end; a slow machine gets more time than a unit test."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def scratch():
    """A short path: engines have sockets below it, and stores of gigabytes are gone when the tests are."""
    path = Path(tempfile.mkdtemp(prefix="mover-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def e2e_weed(scratch):
    with weed_server(scratch / "weed") as server:
        yield server


@pytest_asyncio.fixture(params=["file", "s3"], scope="session", loop_scope="session")
async def site(request, scratch):
    """An engine that runs and an empty destination."""
    kind = request.param
    directory = scratch / kind
    directory.mkdir()
    tree, environment = None, {}
    if kind == "file":
        tree = directory / "dest"
        tree.mkdir()
        url = tree.as_uri()
    else:
        weed = request.getfixturevalue("e2e_weed")
        url, environment = weed.url("backup"), weed.environment
    server = SeekdbServer(directory / "e")
    mover = Mover(directory / "home", {"source": server.source_url, "dest": url}, environment)
    try:
        await server.start(boot_seconds=120)
        yield Site(kind, directory, server, mover, tree)
    finally:
        await mover.close()
        await server.kill()
        shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lone(scratch):
    """An engine and an empty directory that nobody else uses."""
    directory = Path(tempfile.mkdtemp(prefix="lone-", dir=scratch))
    tree = directory / "dest"
    tree.mkdir()
    server = SeekdbServer(directory / "e")
    mover = Mover(directory / "home", {"source": server.source_url, "dest": tree.as_uri()})
    try:
        await server.start(boot_seconds=120)
        yield Site("file", directory, server, mover, tree)
    finally:
        await mover.close()
        await server.kill()
        shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def story(site):
    """The site after the story."""
    return await tell(site)


@pytest.fixture
def file_story(story):
    """Only on a directory: for what looks at or damages the files."""
    if story.site.kind != "file":
        pytest.skip("works on the files of a directory")
    return story
