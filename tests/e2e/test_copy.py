"""`mover copy` between a directory and a real S3 server, killed in the middle, and back."""

import asyncio
import os
import random
import shutil

import independent_writer as writer
import pytest
import pytest_asyncio
from mover_process import Mover
from polling import until

from mover.kernel import ob_crc64

pytestmark = pytest.mark.asyncio(loop_scope="session")
BLOCK = 1 << 20
LIST = f"{writer.TENANT}/data/tenant_data_backup_info"
FILES, BLOCKS = 8, 8  # 64 MiB: with a limit long enough to be killed in the middle


def lay_large_tree(root):
    """A set of OceanBase 3.1.0 with macro files of 8 MiB, and its log."""
    # The writer's own checksum takes minutes for so much; that the two are equal is tested elsewhere.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "crc", lambda data, seed=0: ob_crc64(data, seed))
        _lay(root)


def _lay(root):
    tree = writer.tree()
    (index,) = (name for name in tree if "/index/" in name)
    tree[index] = tree[index][:144]
    rng = random.Random(3)
    (macro,) = (name for name in tree if name.endswith("macro_block_2.0"))
    entries, files = [], {}
    for sub in range(FILES):
        at, frames = 0, []
        for number in range(BLOCKS):
            payload = writer.obj(writer.vstr(writer.META_V2), writer.vstr(rng.randbytes(BLOCK)))
            frame = writer.frames(1, payload)[:-4096]
            order = sub * BLOCKS + number
            entries.append(writer.obj(*map(writer.vint, (order, 5, 70 + order, 2, sub, at, len(frame)))))
            frames.append(frame)
            at += len(frame)
        files[macro.replace("macro_block_2.0", f"macro_block_2.{sub}")] = b"".join([*frames, writer.frames(1)])
    key = writer.obj(
        writer.vint(1),
        writer.pg_bytes(),
        writer.vint(writer.TABLE),
        writer.obj(writer.vint(0), writer.vint(0), writer.vint(writer.US)),
        writer.obj(writer.vint(5)),
        writer.obj(writer.vint(0), writer.vint(0), writer.vint(-1)),
    )
    head = writer.obj(key, writer.vint(len(entries)))
    tree[macro.replace("macro_block_2.0", "macro_block_index_2")] = writer.frames(3, head + b"".join(entries))
    for name, content in {**tree, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def content(root):
    return {
        str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and "mover_copy" not in p.parts
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def large(scratch):
    directory = scratch / "copy"
    lay_large_tree(directory / "source")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


async def test_to_s3_killed_in_the_middle_and_back(large, e2e_weed):
    url = e2e_weed.url("second")
    mover = Mover(large / "home", {}, e2e_weed.environment)
    client = e2e_weed.client()

    def there():
        listed = client.get_paginator("list_objects_v2").paginate(Bucket="mover", Prefix="second/")
        return {item["Key"] for page in listed for item in page.get("Contents", ())}

    try:
        source = (large / "source").as_uri()
        assert (await mover.ok("validate", "--dest", source))["violations"] == []
        plan = await mover.ok("copy", source, url, "--plan")
        assert plan["files"] > FILES
        running = await mover.start("copy", source, url, "--rate-limit", "20MB/s")

        async def begun():
            return [key for key in await asyncio.to_thread(there) if "/macro_block_2." in key]

        await until(begun, "a macro file at the destination", every=0.02)
        await running.kill()
        killed = there()
        assert not [key for key in killed if key.endswith("_data_backup_info")], "nothing is published before its files"
        report = await mover.ok("copy", source, url)
        # What was whole when it died is compared or known, and not sent again.
        assert report["copied_files"] + report["compared_files"] + report["files_there"] >= plan["files"]
        assert report["copied_files"] <= plan["files"] - len([k for k in killed if "/macro_block_2." in k])
        again = await mover.ok("copy", source, url)
        assert (again["copied_files"], again["compared_files"]) == (0, 0)
        one = await mover.ok("show", "windows", "--dest", source)
        assert one["windows"]
        assert one["windows"] == (await mover.ok("show", "windows", "--dest", url))["windows"]
        assert (await mover.ok("validate", "--dest", url))["violations"] == []
        await mover.ok("copy", url, (large / "back").as_uri())
        one, other = content(large / "source"), content(large / "back")
        assert one.keys() == other.keys()
        # A set that failed has no files, and is not in the list of a copy.
        assert [name for name in one if one[name] != other[name]] == [f"{writer.CLUSTER}/{LIST}"]
    finally:
        client.close()
        await mover.close()


async def test_damage_is_status_5_and_then_3(large):
    mover = Mover(large / "home", {})
    shutil.copytree(large / "source", large / "damaged", copy_function=os.link)
    (victim,) = (large / "damaged").rglob("macro_block_2.5")
    data = bytearray(victim.read_bytes())
    victim.unlink()
    data[len(data) // 3] ^= 16
    victim.write_bytes(data)
    source, target = (large / "damaged").as_uri(), (large / "third").as_uri()
    try:
        ran = await mover.run("copy", source, target)
        assert ran.code == 5
        assert "macro_block_2.5" in ran.error["message"]
        assert "set 2 of tenant 1001" in ran.error["message"]
        ran = await mover.run("copy", source, target, "--skip-damaged")
        assert ran.code == 3
        assert ran.json["skipped_sets"] == [{"tenant_id": 1001, "backup_set_id": 2}]
        assert not list((large / "third").rglob("tenant_data_backup_info"))
        assert list((large / "third").rglob("tenant_clog_backup_info"))
    finally:
        await mover.close()
