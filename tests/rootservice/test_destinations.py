"""The whole of a backup's life at object stores as they are: OSS's rules, JuiceFS's gateway, rclone's server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinator import restored, restored_blocks, session_on, small_and_fast  # noqa: F401
from gateways import JuiceFS, Rclone, gateway
from memory_store import BLOCKS, MemoryStore
from oss_server import localhosts, oss_server  # noqa: F401

from mover.errors import MoverError
from mover.media.backup_info import BackupStatus
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.sets import load_infos
from mover.rootservice import archive, backup
from mover.rootservice.sweep import sweep

pytestmark = pytest.mark.usefixtures("small_and_fast")


@pytest.fixture(params=["oss", "juicefs", "rclone"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    kinds = {"juicefs": JuiceFS, "rclone": Rclone}
    directory = tmp_path / "server"
    directory.mkdir()
    with oss_server() if request.param == "oss" else gateway(kinds[request.param], directory) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


async def test_archive_back_up_fail_sweep_restore(store: Any, tmp_path: Path) -> None:
    source = MemoryStore(seed=7)
    for _ in range(8):
        source.change()
    on: dict[str, Any] = {"dest": store.url("pre fix/backup"), "memory": 64 << 20}
    images = {}
    async with session_on(tmp_path, source, faulty={"append": False}, **on) as session:
        await archive.start(session)
        for number in (1, 2):
            await backup.run(session, incremental=number > 1, plan=False, stop=asyncio.Event())
            images[number] = source.image()
            source.change(3)
    async with session_on(tmp_path, source, faulty={"die_at": 12, "append": False}, **on) as session:
        with pytest.raises(MoverError):
            await backup.run(session, incremental=True, plan=False, stop=asyncio.Event())
    async with session_on(tmp_path, source, faulty={"append": False}, **on) as session:
        session.clock.us += 10**15  # type: ignore[attr-defined]
        assert (await sweep(session, older_than=3600, plan=False)).removals
        assert (await sweep(session, older_than=3600, plan=False)).removals == ()
        assert [left async for left in session.repository.target.leftovers("")] == []
        infos = await load_infos(session.repository)
        assert [info.status for info in infos] == [BackupStatus.SUCCESS, BackupStatus.SUCCESS, BackupStatus.FAILED]
        assert (await validate(session.repository, ValidateRequest())).violations == []
        for number, image in images.items():
            await restored(session, tmp_path / f"into{number}", set_id=number)
            assert restored_blocks(tmp_path / f"into{number}", BLOCKS) == image.blocks
