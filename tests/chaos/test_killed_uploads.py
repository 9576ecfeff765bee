"""kill -9 in the middle of uploads, again and again; then a sweep: the server has what the records name.

``make chaos`` kills CHAOS_KILLS (50) times, the suite twice.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import uploading
from coordinator import session_on
from polling import until

from mover.media.layout import FileKind, parse_path
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.sets import complete, load_infos, load_set
from mover.repository.tree import Repository
from mover.rootservice.sweep import sweep

KILLS = int(os.environ.get("CHAOS_KILLS", "2"))
SUPPORT = Path(uploading.__file__).parent


async def _named(repository: Repository) -> set[str]:
    """Every path below ``data/backup_set_*`` that a record of a complete set names."""
    layout, tenant = repository.layout, repository.tenant_id
    paths = set()
    for info in complete(await load_infos(repository)):
        loaded = await load_set(repository, info)
        paths |= {loaded.manifest_path, layout.backup_set_info(tenant, info.full_backup_set_id)}
        paths |= {layout.absolute(row.path) for row in loaded.files}
    return paths


def _objects(client: Any, prefix: str) -> set[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="mover", Prefix=f"{prefix}/")
    return {item["Key"].removeprefix(f"{prefix}/") for page in pages for item in page.get("Contents", ())}


def _uploads(client: Any, prefix: str) -> list[str]:
    found = client.list_multipart_uploads(Bucket="mover", Prefix=f"{prefix}/").get("Uploads", [])
    return [item["Key"] for item in found]


@pytest.mark.timeout(3600)
async def test_the_server_has_what_the_records_name(behind: Any, tmp_path: Path, monkeypatch: Any) -> None:
    rng = random.Random(KILLS)
    killed = left = 0
    async with behind("weed") as (proxy, url):
        monkeypatch.setenv("UPLOADING_DEST", url("killed"))
        client = _client(monkeypatch, proxy)
        run = requests = 0
        while killed < KILLS:
            begun = len(proxy.seen)
            wanted = rng.randrange(4, max(8, requests)) if requests else 1 << 30
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "uploading", str(tmp_path), str(run), cwd=SUPPORT, stderr=asyncio.subprocess.PIPE
            )
            over = asyncio.create_task(process.communicate())

            def there_or_over(until_seen: int = begun + wanted, ended: Any = over) -> bool:
                return ended.done() or len(proxy.seen) > until_seen

            await until(there_or_over, "the run is where it is killed", 120, every=0.002)
            if over.done():
                assert process.returncode == 0, (await over)[1].decode()
                requests = len(proxy.seen) - begun
            else:
                process.kill()
                await over
                killed += 1
                left += len(_uploads(client, "killed"))
            run += 1
        assert left or KILLS < 10, "no kill met an upload of several parts"
        async with session_on(tmp_path, uploading.store_after(run), **uploading.options()) as session:
            session.clock.us += (run + 5) * 10**9  # type: ignore[attr-defined]
            await sweep(session, older_than=60, plan=False)
            there, named = _objects(client, "killed"), await _named(session.repository)
            kinds = {path: parse_path(path) for path in there}
            assert None not in kinds.values(), "an object that is no file of a backup"
            of_sets = {path for path in there if "/backup_set_" in path}
            assert of_sets == named
            assert {kinds[path].kind for path in there - of_sets} <= {  # type: ignore[union-attr]
                kind for kind in FileKind if kind is not FileKind.MACRO_BLOCK
            }
            assert _uploads(client, "killed") == []
            assert (await validate(session.repository, ValidateRequest(everything=True))).violations == []
        await uploading.main(tmp_path, run + 10)
        async with session_on(tmp_path, uploading.store_after(run), **uploading.options()) as session:
            assert (await validate(session.repository, ValidateRequest(everything=True))).violations == []
        client.close()


def _client(monkeypatch: Any, proxy: Any) -> Any:
    """Straight to the server, beside the proxy."""
    import botocore.config
    import botocore.session

    config = botocore.config.Config(s3={"addressing_style": "path"})
    return botocore.session.Session().create_client(
        "s3", endpoint_url=proxy.backend, region_name="us-east-1", config=config
    )
