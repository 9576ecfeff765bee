"""Encrypted sets and log, from the store to the restore: nothing readable there, nothing without the key."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
from coordinator import restored, restored_blocks, restored_log, session_on, small_and_fast, target_of  # noqa: F401
from kms_server import kms_server
from memory_store import BLOCKS, MemoryStore, sstable_block

from mover.config import Settings
from mover.encryption import sources as sources_module
from mover.encryption.given import key_sources
from mover.encryption.sources import Passphrase
from mover.errors import ConfigError, EncryptionKeyError, IntegrityError, MoverError, PreconditionError, StateError
from mover.kernel import xxh3_128
from mover.media.archive import BLOCK_META_SIZE, build_block, iter_blocks
from mover.media.frames import iter_frames
from mover.media.layout import FileKind, parse_path
from mover.media.manifest import read_manifest
from mover.media.sealed import Opening
from mover.media.sealed_log import opened
from mover.recovery.copy import CopyRequest, copy
from mover.recovery.inspect import inspect_path
from mover.recovery.validate import ValidateReport, ValidateRequest, validate
from mover.recovery.windows import windows
from mover.repository.keys import load_ring
from mover.rootservice import archive, backup, keys
from mover.rootservice.doctor import examine
from mover.rootservice.doctor_checks import State
from mover.rootservice.session import Session
from mover.target.url import open_target

pytestmark = pytest.mark.usefixtures("small_and_fast", "quick_scrypt")
MARKER = b"<plain row of the customer>"


@pytest.fixture(autouse=True)
def small_log_files(monkeypatch: pytest.MonkeyPatch, small_and_fast: None) -> None:  # noqa: F811
    monkeypatch.setattr("mover.store.seekdb.rebuild.PALF_FILE_BYTES", 16 << 10)
    monkeypatch.setattr("mover.store.seekdb.rebuild._PALF_FILE_SIZE", (16 << 10) + 4096)


@pytest.fixture
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "SCRYPT_N", 16)


def secret(root: Path, name: str = "key", fill: int = 7) -> dict[str, Any]:
    (root / name).write_bytes(bytes([fill]) * 32)
    return {"encrypt": "aes-256-gcm", "encrypt_key_file": root / name}


async def archive_all(session: Session) -> None:
    await archive.run(session, until_caught_up=True, stop=asyncio.Event())


async def back_up(session: Session, *, incremental: bool = False) -> Any:
    return await backup.run(session, incremental=incremental, plan=False, stop=asyncio.Event())


async def fill(session: Session, store: MemoryStore) -> None:
    """A round, a full, an incremental, and log behind them."""
    await archive.start(session)
    await archive_all(session)
    await back_up(session)
    store.change(4)
    await back_up(session, incremental=True)
    store.write_log(40)
    await archive_all(session)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root / "dest")): p.read_bytes() for p in (root / "dest").rglob("*") if p.is_file()}


async def check(session: Session, **secrets: Any) -> ValidateReport:
    given = key_sources(dataclasses.replace(session.settings, **secrets))
    return await validate(session.repository, ValidateRequest(key_sources=given))


def a_store(seed: int = 5) -> MemoryStore:
    store = MemoryStore(seed=seed, palf_file=16 << 10)
    for _ in range(8):
        store.change()
    # A block and log that an onlooker would recognise.
    content = MARKER * 100
    store.blocks[3] = sstable_block(200_003, store.version, 3, content)
    store.log_writer.group([(store._tick(), MARKER * 3)])
    store.group_ends.append((store.end_lsn, store.scn))
    return store


@pytest.mark.parametrize("append", [True, False], ids=["append", "objects"])
@pytest.mark.parametrize("compression", ["none", "auto", "lz4", "zstd:3"])
async def test_a_store_comes_back_with_its_key_and_nothing_of_it_is_readable(
    tmp_path: Path, compression: str, append: bool
) -> None:
    store, faulty = a_store(), {"append": append}
    async with session_on(tmp_path, store, **secret(tmp_path), compression=compression, faulty=faulty) as session:
        await fill(session, store)
    tree = files_of(tmp_path)
    assert not [path for path, data in tree.items() if MARKER in data]
    if compression == "none":
        digests = [xxh3_128(block) for block in store.blocks.values()]
        assert not [path for path, data in tree.items() if any(digest in data for digest in digests)]
    async with session_on(tmp_path, None, encrypt_key_file=tmp_path / "key") as session:
        report = await restored(session, tmp_path / "copy")
        assert report.facts.key_id
        assert restored_blocks(tmp_path / "copy", BLOCKS) == store.blocks
        log = restored_log(store, tmp_path / "copy", report.point.set.start_lsn)
        assert log.startswith(store.log_until(report.point.set.start_lsn, store.end_lsn))
        checked = await check(session)
        assert checked.violations == []
        assert checked.not_decrypted == []


async def test_without_encryption_nothing_changed(tmp_path: Path) -> None:
    """The marker is there, so the search of the other tests can find it; and no key ring is."""
    store = a_store()
    async with session_on(tmp_path, store, compression="none") as session:
        await fill(session, store)
    tree = files_of(tmp_path)
    found = {parsed.kind for path in tree if MARKER in tree[path] and (parsed := parse_path(path)) is not None}
    assert found == {FileKind.MACRO_BLOCK, FileKind.ARCHIVE_DATA}
    assert not [path for path in tree if "mover_keys" in path]


@pytest.mark.parametrize("given", ["nothing", "another"])
async def test_without_the_key_nothing_is_written_and_the_key_is_named(tmp_path: Path, given: str) -> None:
    store = a_store()
    async with session_on(tmp_path, store, **secret(tmp_path)) as session:
        await fill(session, store)
        key_id = session.repository.keys.current.name
    before = files_of(tmp_path)
    wrong = {} if given == "nothing" else secret(tmp_path, "other", 9)
    async with session_on(tmp_path, store, **wrong) as session:
        with pytest.raises(EncryptionKeyError, match=key_id):
            await restored(session, tmp_path / "copy")
        store.change()
        for incremental in (True,) if given == "nothing" else (True, False):
            with pytest.raises(EncryptionKeyError, match=key_id):
                await back_up(session, incremental=incremental)
        with pytest.raises(EncryptionKeyError, match=key_id):
            await archive_all(session)
        # What is readable without a key is.
        assert len((await windows(session.repository)).windows) == 1
    assert not (tmp_path / "copy").exists()
    assert files_of(tmp_path) == before


async def test_encryption_without_a_secret_is_refused(tmp_path: Path) -> None:
    async with session_on(tmp_path, a_store(), encrypt="aes-256-gcm") as session:
        with pytest.raises(ConfigError, match="needs a key"):
            await archive.start(session)
    assert files_of(tmp_path) == {}


async def test_log_whose_key_is_missing_is_refused_before_the_target_is_made(tmp_path: Path) -> None:
    """A plain set, and log that was encrypted later: also when the record that names the key is gone."""
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        await archive_all(session)
        await back_up(session)
    store.write_log(40)
    async with session_on(tmp_path, store, **secret(tmp_path)) as session:
        await archive_all(session)
    async with session_on(tmp_path, None) as session:
        for _ in range(2):
            with pytest.raises(EncryptionKeyError):
                await restored(session, tmp_path / "copy")
            assert not (tmp_path / "copy").exists()
            await target_of(session).delete(session.repository.layout.round_record(1, 1))
    async with session_on(tmp_path, None, encrypt_key_file=tmp_path / "key") as session:
        report = await restored(session, tmp_path / "copy")
        log = restored_log(store, tmp_path / "copy", report.point.set.start_lsn)
        assert log.startswith(store.log_until(report.point.set.start_lsn, store.end_lsn))


async def test_a_plain_set_gets_no_encrypted_incremental(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await fill(session, store)
    async with session_on(tmp_path, store, **secret(tmp_path)) as session:
        with pytest.raises(EncryptionKeyError, match="is not encrypted"):
            await back_up(session, incremental=True)
        view = await back_up(session)
        assert view.restorable
        report = await restored(session, tmp_path / "copy")
        assert report.facts.backup_set_id == view.info.inc_backup_set_id


async def test_validation_without_the_key_checks_digests_and_says_so(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store, **secret(tmp_path)) as session:
        await fill(session, store)
        key_id = session.repository.keys.current.name
    async with session_on(tmp_path, None) as session:
        report = await check(session)
        assert report.violations == []
        assert [text.split(",")[0] for text in report.not_decrypted] == ["set 1", "set 2", "round 1"]
        assert all(key_id in text for text in report.not_decrypted)
        with pytest.raises(EncryptionKeyError, match=key_id):
            await check(session, encrypt_key_file=secret(tmp_path, "other", 9)["encrypt_key_file"])


async def test_every_damaged_file_is_found_without_the_key(tmp_path: Path) -> None:
    store, rng = a_store(), random.Random(4)
    async with session_on(tmp_path, store, **secret(tmp_path)) as session:
        await fill(session, store)
    async with session_on(tmp_path, None) as session:
        target = target_of(session)
        for path, whole in files_of(tmp_path).items():
            bit = rng.randrange(len(whole) * 8)
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            await target.put(path, bytes(damaged))
            assert path in [found.path for found in (await check(session)).violations], f"{path}, bit {bit}"
            await target.put(path, whole)
        logs = sorted(path for path in files_of(tmp_path) if "/clog/1/data/" in path)
        for path in logs[1:]:
            whole = (tmp_path / "dest" / path).read_bytes()
            await target.delete(path)
            assert not (await check(session)).ok, path
            await target.put(path, whole)
        assert (await check(session)).ok


async def test_what_somebody_exchanged_with_all_checksums_right_is_found_with_the_key(tmp_path: Path) -> None:
    """Two frames of a macro file change places, two meta files change names: without a key both look good."""
    store = a_store()
    async with session_on(tmp_path, store, **secret(tmp_path), compression="none") as session:
        await fill(session, store)
        target, layout = target_of(session), session.repository.layout
        path = layout.macro_block(1, 1, (await store.identity()).pg, 1, 0)
        data = (tmp_path / "dest" / path).read_bytes()
        frames = list(iter_frames(data))
        same = next((a, b) for a in frames for b in frames if a.offset < b.offset and a.size == b.size)
        forged = bytearray(data)
        for here, there in (same, same[::-1]):
            forged[here.offset : here.offset + here.size] = data[there.offset : there.offset + there.size]
        await target.put(path, bytes(forged))
        report = await check(session)
        assert path in [found.path for found in report.violations]
        with pytest.raises(MoverError):
            await restored(session, tmp_path / "copy", set_id=1)
        await target.put(path, data)


async def test_plain_log_behind_encrypted_log_is_not_taken(tmp_path: Path) -> None:
    """Somebody who writes to the destination replaced a file by one that needs no key: the log itself would hold."""
    store = a_store()
    async with session_on(tmp_path, store, **secret(tmp_path), faulty={"append": False}) as session:
        await fill(session, store)
        files = sorted(
            (path for path in files_of(tmp_path) if "/clog/1/data/" in path), key=lambda p: int(p.split("/")[-1])
        )
        target, path = target_of(session), files[-1]
        keys_at_hand, data = session.repository.keys, (tmp_path / "dest" / path).read_bytes()
        plain = b""
        for block in iter_blocks(data):
            known = opened(block, Opening.of(path, keys_at_hand))
            plain += build_block(known.meta, known.payload, offset=len(plain))
        await target.put(path, plain)
        report = await check(session)
        assert [(found.path, "is not encrypted" in found.message) for found in report.violations] == [(path, True)]
        with pytest.raises(IntegrityError, match="is not encrypted"):
            await restored(session, tmp_path / "copy")


async def test_several_processes_encrypt_the_same_set(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store, **secret(tmp_path), processes=2, memory=64 << 20) as session:
        await fill(session, store)
    assert not [path for path, data in files_of(tmp_path).items() if MARKER in data]
    async with session_on(tmp_path, None, encrypt_key_file=tmp_path / "key") as session:
        await restored(session, tmp_path / "copy")
        assert restored_blocks(tmp_path / "copy", BLOCKS) == store.blocks
        assert (await check(session)).violations == []
        subs, salts = set(), set()
        for path, data in files_of(tmp_path).items():
            parsed = parse_path(path)
            if parsed is not None and parsed.kind is FileKind.MACRO_BLOCK and parsed.inc_set == 1:
                subs.add(parsed.sub)
                salts |= {frame.payload[-32:-16] for frame in iter_frames(data)}
        assert subs == {0, 1}
        assert len(salts) == 2, "each process draws a salt of its own"


async def test_keys_are_added_rotated_and_removed_and_no_data_is_written_again(tmp_path: Path) -> None:
    store = a_store()
    first = secret(tmp_path)
    async with session_on(tmp_path, store, **first) as session:
        await fill(session, store)
        old = session.repository.keys.current
        await keys.add(session, (Passphrase("correct horse"),))
        before = {path: data for path, data in files_of(tmp_path).items() if "mover_keys" not in path}
        view = await keys.rotate(session, ())
    assert {path: data for path, data in files_of(tmp_path).items() if "mover_keys" not in path} == before
    assert [path for path in files_of(tmp_path) if "mover_keys" in path] == ["seekdb/1/incarnation_1/mover_keys/3"]
    assert [key["current"] for key in view.as_json()["keys"]] == [False, True]
    phrase = {"encrypt": "aes-256-gcm", "encrypt_passphrase": "correct horse"}
    async with session_on(tmp_path, store, **phrase) as session:
        store.change()
        await archive_all(session)
        await back_up(session, incremental=True)
        new = session.repository.keys.current
        assert new.id != old.id
        await keys.remove(session, 1)
        with pytest.raises(PreconditionError, match="last one"):
            await keys.remove(session, 2)
        assert (await keys.show(session)).opened_by == 2
        # An incremental of the new key on sets of the old one, in a round of both.
        report = await restored(session, tmp_path / "copy")
        assert report.facts.key_id == new.name
        assert restored_blocks(tmp_path / "copy", BLOCKS) == store.blocks
        assert (await check(session)).violations == []
    async with session_on(tmp_path, None, **first) as session:
        with pytest.raises(EncryptionKeyError, match=new.name):
            await restored(session, tmp_path / "again")
    assert not (tmp_path / "again").exists()


async def test_two_who_change_the_ring_at_the_same_time(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store, **secret(tmp_path)) as session:
        await archive.start(session)
        done = await asyncio.gather(
            keys.rotate(session, ()), keys.add(session, (Passphrase("a"),)), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in done) == ["KeyView", "StateError"]
        assert any(isinstance(result, StateError) for result in done)
        stored = await load_ring(session.repository)
        assert stored is not None
        assert (stored.generation, len(stored.ring.keys) + len(stored.ring.slots)) == (2, 3)


async def test_a_key_service_holds_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tests")
    store = a_store()
    with kms_server("backup") as kms:
        settings = {"encrypt": "aes-256-gcm", "encrypt_kms": kms.kms_url("backup")}
        async with session_on(tmp_path, store, **settings) as session:
            await fill(session, store)
            await restored(session, tmp_path / "copy")
            assert restored_blocks(tmp_path / "copy", BLOCKS) == store.blocks
        kms.failing = (400, "DisabledException")
        async with session_on(tmp_path, store, **settings) as session:
            with pytest.raises(MoverError, match="DisabledException"):
                await restored(session, tmp_path / "again")
            assert not (tmp_path / "again").exists()


async def test_a_log_file_that_a_dead_archiver_left_is_gone_on_from(tmp_path: Path) -> None:
    """Its newest file has no index record and a torn end; the next archiver has the running checksum from inside."""
    store = a_store()
    async with session_on(tmp_path, store, **secret(tmp_path)) as session:
        await archive.start(session)
        await archive_all(session)
        store.write_log(30)
        await archive_all(session)
        layout, pg = session.repository.layout, (await store.identity()).pg
        names = sorted(path for path in files_of(tmp_path) if "/clog/1/data/" in path)
        target = target_of(session)
        index = layout.archive_index(1, 1, pg, 1)
        await target.put(index, (tmp_path / "dest" / index).read_bytes()[:-144])
        newest = (tmp_path / "dest" / names[-1]).read_bytes()
        await target.put(names[-1], newest + newest[: BLOCK_META_SIZE + 5])
        store.write_log(20)
        await archive_all(session)
        await back_up(session)
        report = await restored(session, tmp_path / "copy")
        log = restored_log(store, tmp_path / "copy", report.point.set.start_lsn)
        assert log.startswith(store.log_until(report.point.set.start_lsn, store.end_lsn))
        assert (await check(session)).violations == []


async def test_inspect_decodes_with_the_key(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store, **secret(tmp_path)) as session:
        await fill(session, store)
        key_id = session.repository.keys.current.name
        settings = session.settings
    tree = str(tmp_path / "dest")
    locked = dataclasses.replace(settings, encrypt_key_file=None, encrypt="none")
    for given, place in ((settings, tree), (settings, f"file://{tree}"), (locked, tree)):
        said = [entry async for entry in inspect_path(given, place, records=False)]
        assert all(entry["ok"] for entry in said)
        needed = {entry["encrypted_with"] for entry in said if "encrypted_with" in entry}
        assert needed == ({key_id} if given is locked else set())


async def test_the_manifest_of_an_encrypted_set_names_its_key(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store, **secret(tmp_path)) as session:
        await fill(session, store)
        data = await target_of(session).get(session.repository.layout.manifest(1, 1, 1))
        facts = read_manifest(data, locked=True).facts
        assert facts.key_id == session.repository.keys.current.name
        assert not facts.readable_by_oceanbase


async def test_doctor_tries_the_keys_and_makes_none(tmp_path: Path) -> None:
    async def verdict(**secrets: Any) -> tuple[State, str]:
        settings = Settings(dest=(tmp_path / "dest").as_uri(), **secrets)
        found = await examine(settings, seconds=0, on_check=lambda _check: None)
        (check,) = (check for check in found.checks if check.name == "keys")
        return check.state, check.detail

    (tmp_path / "dest").mkdir()
    assert (await verdict(encrypt="aes-256-gcm"))[0] == State.FAIL
    assert (await verdict(**secret(tmp_path)))[0] == State.OK
    assert files_of(tmp_path) == {}
    async with session_on(tmp_path, a_store(), **secret(tmp_path)) as session:
        await archive.start(session)
        key_id = session.repository.keys.current.name
    assert await verdict(**secret(tmp_path)) == (State.OK, f"slot 1 opens them; data key {key_id} is written with")
    state, detail = await verdict(**secret(tmp_path, "other", 9))
    assert state == State.FAIL
    assert key_id in detail


async def test_a_copy_is_made_without_the_key_and_read_with_it(tmp_path: Path) -> None:
    store = a_store()
    (tmp_path / "second").mkdir()

    async def copy_all() -> None:
        one = await open_target((tmp_path / "dest").as_uri(), create=False)
        other = await open_target((tmp_path / "second/dest").as_uri())
        try:
            assert (await copy(one, other, CopyRequest(memory=32 << 20))).ok
        finally:
            await one.aclose()
            await other.aclose()

    async with session_on(tmp_path, store, **secret(tmp_path)) as session:
        await fill(session, store)
        await copy_all()
        # A changed ring comes with the next copy, and counts there.
        await keys.rotate(session, (Passphrase("correct horse"),))
        store.change()
        await copy_all()
    async with session_on(tmp_path / "second", None, encrypt_passphrase="correct horse") as session:
        assert (await check(session)).violations == []
        assert (await check(session)).not_decrypted == []
        await restored(session, tmp_path / "into", set_id=2)
