"""A backup with secrets of every kind: none of them is at the destination, in the catalog, in what was said or in a
command line, of this process or of those that it starts."""

import asyncio
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_backup_keeps_its_secrets(lone, e2e_weed, scratch):
    phrase = f"phrase-{os.urandom(8).hex()}"
    home = scratch / "secrets"
    mover = lone.mover.but(
        home,
        dest=e2e_weed.url("secrets", keys=True),
        encrypt="aes-256-gcm",
        encrypt_passphrase=phrase,
        source_password="",
        log_level="debug",
        processes="2",
    )
    mover.environment.update(e2e_weed.environment)
    del mover.environment["AWS_SECRET_ACCESS_KEY"], mover.environment["AWS_ACCESS_KEY_ID"]
    said = [await mover.run("archivelog", "start")]
    background = await mover.start("backup", "full")
    lines = set()
    while background.running:
        lines |= {line for line in _command_lines() if "mover" in line}
        await asyncio.wait([asyncio.create_task(background.process.wait())], timeout=0.02)
    said.append(background.so_far())
    assert said[-1].code in (0, 3), str(said[-1])
    said += [
        await mover.run(*words) for words in (("show", "jobs"), ("show", "sets"), ("validate",), ("config", "show"))
    ]
    texts = {f"{ran.arguments}": ran.out + ran.err for ran in said} | {"command lines": "\n".join(lines)}
    texts |= {str(path): path.read_bytes().decode("latin-1") for path in home.rglob("*") if path.is_file()}
    client = e2e_weed.client()
    try:
        for item in client.list_objects_v2(Bucket=e2e_weed.bucket, Prefix="secrets/")["Contents"]:
            body = client.get_object(Bucket=e2e_weed.bucket, Key=item["Key"])["Body"].read()
            texts[item["Key"]] = item["Key"] + body.decode("latin-1")
    finally:
        client.close()
    assert any("manifest" in name for name in texts) and any(name.endswith(".db") for name in texts)
    assert any(" backup" in line for line in lines)
    for name, text in texts.items():
        assert phrase not in text, name
        assert e2e_weed.access_key[:30] not in text, name


def _command_lines():
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                yield (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("latin-1")
            except OSError:
                continue  # it has ended
