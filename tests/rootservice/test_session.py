"""Opening a session: one catalog for one destination, however it is spelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from mover.config import Settings
from mover.errors import ConfigError
from mover.rootservice.session import open_catalog
from mover.rootservice.state import catalog_url


async def database_of(dest: str, state: Path) -> str | None:
    async with open_catalog(Settings(dest=dest, state_dir=state)) as catalog:
        return catalog.engine.url.database


async def test_two_spellings_of_a_destination_have_one_catalog(tmp_path: Path) -> None:
    """Else two archivers of one destination would each hold a lease of their own."""
    spellings = [
        ["file:///mnt/b", "file:///mnt/b/", "file:///mnt/./b", "file://localhost/mnt/b"],
        ["s3://bucket/p?endpoint=http://h:1", "s3://bucket/p/?endpoint=http://h:1&concurrency=7"],
        ["s3://bucket/p?endpoint=http://h:2"],
        ["s3://bucket/q?endpoint=http://h:1"],
    ]
    found = [{await database_of(url, tmp_path) for url in same} for same in spellings]
    assert [len(names) for names in found] == [1, 1, 1, 1]
    assert len(set.union(*found)) == len(found)


def test_a_state_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="state directory") as refused:
        catalog_url(Settings(state_dir=tmp_path / "file" / "state", dest="file:///a"))
    assert "--state-dir" in (refused.value.hint or "")
