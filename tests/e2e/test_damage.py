"""One flipped bit, a missing, cut or longer file: validate and restore say which file it is, and nothing is written."""

import random
import shutil

import pytest
import pytest_asyncio

from mover.errors import LogGapError, MoverError, TargetNotFound
from mover.media.layout import parse_path
from mover.recovery.restore import RestoreRequest, restore
from mover.recovery.validate import ValidateRequest, validate

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]

LARGE = 1 << 20


@pytest.fixture
def copy(file_story):
    """The destination as it was at the end of the story, to be damaged and repaired file by file."""
    return file_story.copy


@pytest_asyncio.fixture(loop_scope="session")
async def repository(copy):
    async with copy.repository() as opened:
        yield opened


def _files(site):
    return sorted(str(path.relative_to(site.tree)) for path in site.tree.rglob("*") if path.is_file())


def _one_of_each_kind(site):
    """The last file of every kind there is."""
    return sorted({parse_path(path).kind: path for path in _files(site)}.values())


class Damage:
    """A file that is damaged inside the context and whole again behind it."""

    def __init__(self, site, path, change):
        self.path = site.tree / path
        self.change = change

    def __enter__(self):
        self.whole = self.path.read_bytes()
        damaged = self.change(self.whole)
        if damaged is None:
            self.path.unlink()
        else:
            self.path.write_bytes(damaged)

    def __exit__(self, *_exception):
        self.path.write_bytes(self.whole)


def flip(position, bit):
    def change(data):
        return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]

    return change


def _positions(rng, size):
    """One for a small file; the first part, the middle and the last byte of a large one."""
    if size < LARGE:
        return [rng.randrange(size)]
    return [rng.randrange(4096), rng.randrange(size), size - 1]


async def _violations(repository):
    report = await validate(repository, ValidateRequest(everything=True))
    return sorted({violation.path for violation in report.violations})


async def test_validate_names_the_file_of_any_flipped_bit(copy, repository):
    rng = random.Random(77)
    assert await _violations(repository) == []
    wrong = []
    for path in _files(copy):
        for position in _positions(rng, (copy.tree / path).stat().st_size):
            bit = rng.randrange(8)
            with Damage(copy, path, flip(position, bit)):
                named = await _violations(repository)
            if named != [path]:
                wrong.append((path, position, bit, named))
    assert wrong == []
    assert await _violations(repository) == []


def _is_log(path):
    """A data file behind the kickoff: an archiver that died may have left a torn tail, so a longer one is whole."""
    return "/clog/1/data/" in path and not path.endswith("/1")


@pytest.mark.parametrize(
    ("change", "longer"),
    [
        pytest.param(lambda data: None, False, id="missing"),
        pytest.param(lambda data: data[: len(data) // 2], False, id="cut"),
        pytest.param(lambda data: data + b"garbage" * 700, True, id="garbage-behind"),
    ],
)
async def test_validate_names_a_file_of_the_wrong_length(copy, repository, change, longer):
    wrong = []
    for path in _one_of_each_kind(copy):
        if longer and _is_log(path):
            continue
        with Damage(copy, path, change):
            named = await _violations(repository)
        # The server's file is named by its directory: only the file itself says what it is called.
        if not any(path == name or (change(b"") is None and path.startswith(name + "/")) for name in named):
            wrong.append((path, named))
    assert wrong == []


async def _files_read_by_a_restore(repository, target, monkeypatch):
    """Paths that a restore of the latest set reads from beginning to end."""
    read, pieces = set(), {}
    whole, stream, read_into = repository.target.get, repository.target.stream, repository.target.read_into

    async def get(path, start=0, length=None):
        if length is None:
            read.add(path)
        return await whole(path, start, length)

    def streamed(path, **options):
        read.add(path)
        return stream(path, **options)

    async def piece(path, start, buffer):
        pieces[path] = pieces.get(path, 0) + len(buffer)
        await read_into(path, start, buffer)

    with monkeypatch.context() as patch:
        patch.setattr(repository.target, "get", get)
        patch.setattr(repository.target, "read_into", piece)
        patch.setattr(repository.target, "stream", streamed)
        await restore(repository, RestoreRequest(target))
    shutil.rmtree(target)
    for path, size in pieces.items():
        if size == (await repository.target.stat(path)).size:
            read.add(path)
    # The kickoff that begins a round is looked at on the way to the log, and is not needed.
    return sorted(path for path in read if not path.endswith("/data/1649267441665/0/1"))


async def test_restore_refuses_any_flipped_bit_it_reads(copy, repository, monkeypatch):
    rng = random.Random(78)
    target = copy.new_target()
    read = await _files_read_by_a_restore(repository, target, monkeypatch)
    assert len(read) > 10, read
    kinds = ("mover_manifest", "macro_block_", "macro_block_index_", "meta_file_", "/clog/1/data/", "backup_info")
    assert all(any(kind in path for path in read) for kind in kinds), read
    wrong = []
    for path in read:
        position, bit = rng.randrange((copy.tree / path).stat().st_size), rng.randrange(8)
        with Damage(copy, path, flip(position, bit)):
            try:
                await restore(repository, RestoreRequest(target))
                wrong.append((path, position, bit, "restored"))
                shutil.rmtree(target)
            except MoverError as error:
                if error.exit_code != 5 or path not in (error.where.get("path"), error.message.split(": ")[0]):
                    wrong.append((path, position, bit, repr(error)))
        if target.exists():
            wrong.append((path, position, bit, "left something behind"))
            shutil.rmtree(target)
    assert wrong == []


async def test_restore_refuses_what_is_missing(copy, repository, monkeypatch):
    target = copy.new_target()
    whole = await restore(repository, RestoreRequest(target))
    shutil.rmtree(target)
    for path in await _files_read_by_a_restore(repository, target, monkeypatch):
        if "/index/" in path:
            continue  # it says what is in the data files, which say it themselves
        with Damage(copy, path, lambda data: None):
            try:
                report = await restore(repository, RestoreRequest(target))
            except MoverError as error:
                assert isinstance(error, TargetNotFound | LogGapError) or error.exit_code in {4, 5}, path
                assert not target.exists(), path
            else:
                # Without its manifest the newest set is not one, but the set before it reaches the same moment; and the
                # log says itself how far it goes.
                assert path.endswith(("backup_2/mover_manifest", "/mover_round")), f"restored without {path}"
                assert report.log_end_scn == whole.log_end_scn
                shutil.rmtree(target)


@pytest.mark.parametrize(
    "kind", ["mover_manifest", "macro_block_1.", "meta_file_1", "/clog/1/data/", "tenant_data_backup_info"]
)
async def test_the_same_as_processes(copy, kind):
    path = next(path for path in reversed(_files(copy)) if kind in path and not path.endswith("/1"))
    size = (copy.tree / path).stat().st_size
    with Damage(copy, path, flip(random.Random(79).randrange(size), 3)):
        ran = await copy.mover.run("validate")
        assert ran.code == 5, str(ran)
        assert ran.json["ok"] is False
        assert {violation["path"] for violation in ran.json["violations"]} == {path}
        target = copy.new_target()
        set_id = ("--set", 1) if kind == "macro_block_1." else ()
        ran = await copy.mover.run("restore", "--target", target, *set_id)
        assert ran.code == 5, str(ran)
        assert path in ran.error["message"]
        assert not target.exists()
