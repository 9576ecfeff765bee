"""Reading a round back: any chunking, file switches, torn tails, and everything that may be missing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_store import PG, MemoryStore

from mover.datapath.compression import Compression
from mover.datapath.log_packer import LogPacker, RoundStart
from mover.errors import IntegrityError, LogGapError
from mover.media.archive import build_kickoff_block, scan_data_file
from mover.media.archive_index import INDEX_RECORD_SIZE
from mover.media.layout import Layout
from mover.media.log_entry import Kickoff
from mover.repository.rounds import RoundReader
from mover.repository.tree import Repository
from mover.store.base import LogCursor
from mover.target.files import FileTarget

START = RoundStart(start_ts=1, start_log_id=1, snapshot_version=1, log_submit_ts=1)


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda fd: None)
    monkeypatch.setattr("os.fdatasync", lambda fd: None)


class Round:
    """A round that is written by one packer after the other."""

    def __init__(self, repository: Repository, store: MemoryStore) -> None:
        self.repository = repository
        self.store = store
        self.reader = RoundReader(repository, 1, PG)
        self.epoch = 0

    async def begin(self) -> None:
        kickoff = build_kickoff_block(PG, 1, Kickoff(1, 1, 1), timestamp=1, accum_checksum=0, start_submit_ts=1)
        await self.repository.target.put(self.repository.layout.archive_data(1, 1, PG, 1), kickoff)

    async def write(self, *, chunk: int, flush_every: int = 1, close_every: int = 1000, close: bool = True) -> None:
        """A new archiver goes on where the destination ends, until the store's end."""
        tail = await self.reader.tail()
        newest = tail.newest_record
        self.epoch += 1
        packer = LogPacker(
            self.repository, 1, PG, epoch=self.epoch, start=START, accum=tail.accum, next_file_id=tail.last_file_id + 1,
            index=(tail.index_file_id, tail.index_size, tail.index_bytes), last_record=newest,
            compression=Compression.parse("auto"), fence=lambda: None,
        )  # fmt: skip
        if (found := tail.unrecorded) is not None:
            record = START.record(found.file_id, None, newest)
            if found.usable:
                record = type(record)(
                    found.file_id, found.input_bytes, found.output_bytes, found.epoch, found.accum or 0,
                    found.first_log_id, found.min_log_ts, found.last_log_id, found.max_checkpoint_ts, found.max_log_ts,
                    1, 1, 1, 1, 0, 0,
                )  # fmt: skip
            await packer.write_record(record)
        cursor = tail.cursor or LogCursor(self.store.first_lsn)
        log = await self.store.log(f"t{self.epoch}")
        number = 0
        while (found_chunk := await log.read(cursor, chunk)) is not None:
            await packer.add(found_chunk, 1)
            cursor = found_chunk.next
            number += 1
            if number % flush_every == 0:
                await packer.flush()
            if number % close_every == 0:
                await packer.flush()
                await packer.close_file()
        await packer.flush()
        if close:
            await packer.close_file()

    async def read(self, start: int, until: int) -> bytes:
        data, at = b"", None
        async for run in self.reader.log(start, until):
            at = run.lsn if at is None else at
            assert run.lsn == at + len(data)
            assert (run.block_header is not None) == (run.lsn % self.store.palf_file == 0)
            data += run.data
        assert at is not None and at <= start
        return data[start - at :][: until - start]

    def data_file(self, number: int) -> Path:
        target = self.repository.target
        assert isinstance(target, FileTarget)
        return Path(target.path) / self.repository.layout.archive_data(1, 1, PG, number)

    def index_file(self, number: int) -> Path:
        target = self.repository.target
        assert isinstance(target, FileTarget)
        return Path(target.path) / self.repository.layout.archive_index(1, 1, PG, number)


@asynccontextmanager
async def a_round(seed: int = 3, groups: int = 120, **store: Any) -> AsyncIterator[Round]:
    with TemporaryDirectory() as root:
        target = FileTarget(root, f"file://{root}", create=True)
        await target.open()
        try:
            memory = MemoryStore(seed=seed, palf_file=8 << 10, **store)
            memory.write_log(groups)
            made = Round(Repository(target, Layout("seekdb", 1), 1), memory)
            await made.begin()
            yield made
        finally:
            await target.aclose()


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    chunk=st.integers(700, 20_000),
    flush=st.integers(1, 5),
    close=st.integers(1, 12),
    cut=st.lists(st.integers(1, 5000), max_size=3),
)
async def test_any_chunking_file_switch_and_torn_tail_reads_back_the_same_log(
    seed: int, chunk: int, flush: int, close: int, cut: list[int]
) -> None:
    async with a_round(seed, 60) as made:
        store, rng = made.store, random.Random(seed)
        for torn in cut:
            await made.write(chunk=chunk, flush_every=flush, close_every=close, close=False)
            last = (await made.reader.data_files())[-1][0]
            if last not in (await made.reader.index_records())[0]:
                # The writer died: the newest file ends anywhere behind what was in it.
                path = made.data_file(last)
                path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - torn)])
            store.write_log(rng.randint(1, 30))
        await made.write(chunk=chunk, flush_every=flush, close_every=close)
        assert (await made.reader.tail()).cursor == LogCursor(
            store.end_lsn, store.log_writer.log_id - 1, store.log_writer.accum, store.group_ends[-1][1]
        )
        ends = [0, *(lsn for lsn, _ in store.group_ends)]
        for _ in range(6):
            start, until = sorted(rng.sample(ends, 2))
            assert await made.read(start, until) == store.log_until(start, until)


async def test_a_file_that_was_verified_has_no_bit_that_may_be_another() -> None:
    async with a_round(groups=30) as made:
        await made.write(chunk=2000, close_every=3)
        end = made.store.end_lsn
        await made.read(0, end)
        files = [number for number, _ in await made.reader.data_files()]
        # The kickoff is not log.
        assert made.reader.verified == {
            made.repository.layout.archive_data(1, 1, PG, number) for number in files if number > 1
        }
        rng = random.Random(2)
        for number in files[1:3]:
            path = made.data_file(number)
            whole = path.read_bytes()
            for position in range(0, len(whole), 5):
                damaged = bytearray(whole)
                damaged[position] ^= 1 << rng.randrange(8)
                path.write_bytes(damaged)
                made.reader = RoundReader(made.repository, 1, PG)
                with pytest.raises((IntegrityError, LogGapError)):
                    await made.read(0, end)
                assert made.repository.layout.archive_data(1, 1, PG, number) not in made.reader.verified
            path.write_bytes(whole)


async def test_only_the_files_that_hold_the_log_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_round(groups=60) as made:
        await made.write(chunk=2000, close_every=2)
        ends = [lsn for lsn, _ in made.store.group_ends]
        files = [number for number, _ in await made.reader.data_files()]
        starts = [found for number in files if (found := await made.reader.first_lsn(number)) is not None]
        read: list[str] = []
        original = FileTarget.read_into

        async def read_into(self: FileTarget, path: str, start: int, buffer: memoryview) -> None:
            read.append(path)
            await original(self, path, start, buffer)

        monkeypatch.setattr(FileTarget, "read_into", read_into)
        until = max(lsn for lsn in ends if lsn <= starts[3])
        await made.read(0, until)
        assert len(read) == 3
        read.clear()
        # Who stops early leaves nothing behind: no task, no warning about one.
        async with aclosing(made.reader.log(0, ends[-1])) as runs:
            async for _ in runs:
                break
        assert len(read) <= 2
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_tail_torn_at_every_byte_of_the_last_block_costs_that_block_only() -> None:
    async with a_round(groups=6) as made:
        await made.write(chunk=700, close=False)
        path = made.data_file((await made.reader.data_files())[-1][0])
        whole = path.read_bytes()
        blocks = scan_data_file(whole).blocks
        for end in range(blocks[-1].offset, len(whole)):
            path.write_bytes(whole[:end])
            tail = await made.reader.tail()
            assert tail.cursor is not None
            assert tail.cursor.log_id == blocks[-2].meta.max_log_id
            assert (tail.unrecorded is not None and tail.unrecorded.torn is None) == (end == blocks[-1].offset)


async def test_an_index_torn_at_every_byte_of_the_last_record_is_written_again() -> None:
    for kept in range(INDEX_RECORD_SIZE):
        async with a_round(groups=8) as made:
            await made.write(chunk=700, close_every=3)
            path = made.index_file(1)
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) - INDEX_RECORD_SIZE + kept])
            made.store.write_log(3)
            await made.write(chunk=700)
            assert path.read_bytes()[: len(whole)] == whole
            assert await made.read(0, made.store.end_lsn) == made.store.log_until(0, made.store.end_lsn)
            if kept > 4:
                break


async def test_a_last_index_record_whose_bytes_never_came_is_written_again() -> None:
    async with a_round(groups=8) as made:
        await made.write(chunk=700, close_every=3)
        path = made.index_file(1)
        whole = path.read_bytes()
        path.write_bytes(whole[:-INDEX_RECORD_SIZE] + bytes(INDEX_RECORD_SIZE))  # the power failed: length, no data
        made.store.write_log(3)
        await made.write(chunk=700)
        assert path.read_bytes()[: len(whole)] == whole
        assert await made.read(0, made.store.end_lsn) == made.store.log_until(0, made.store.end_lsn)


@pytest.mark.parametrize("kept", [0, 1, 143])
async def test_an_index_file_whose_only_record_is_torn_does_not_stop_the_archive(kept: int) -> None:
    async with a_round(groups=4) as made:
        await made.write(chunk=2000, close=False)
        await made.write(chunk=2000, close=False)  # closes the kickoff's file: one record
        path = made.index_file(1)
        data_files = await made.reader.data_files()
        for number, _ in data_files[1:]:
            made.data_file(number).unlink()
        path.write_bytes(path.read_bytes()[:kept])
        await made.write(chunk=2000)
        assert await made.read(0, made.store.end_lsn) == made.store.log_until(0, made.store.end_lsn)


@pytest.mark.parametrize("which", [1, 2, 3, 4])
async def test_a_missing_data_file_is_named(which: int) -> None:
    async with a_round(groups=60) as made:
        await made.write(chunk=3000, close_every=2)
        made.store.write_log(3)
        await made.write(chunk=3000)
        made.data_file(which + 1).unlink()
        with pytest.raises((LogGapError, IntegrityError)) as missing:
            await made.read(0, made.store.end_lsn)
        assert missing.value.where["path"].startswith("seekdb/1/incarnation_1/1/clog/1/data/")
        with pytest.raises(IntegrityError, match=rf"/{which + 1}: this data file has an index record, but"):
            await made.reader.check_files()


async def test_a_missing_newest_data_file_stops_the_next_archiver() -> None:
    async with a_round() as made:
        await made.write(chunk=3000, close_every=5)
        last = (await made.reader.data_files())[-1][0]
        made.data_file(last).unlink()
        with pytest.raises(IntegrityError, match="has an index record, but it is not there"):
            await made.reader.tail()


async def test_a_hole_in_the_index_is_named_by_the_tail() -> None:
    async with a_round(groups=30) as made:
        await made.write(chunk=2000, close_every=2)
        path = made.index_file(1)
        data = path.read_bytes()
        last = (await made.reader.data_files())[-1][0]
        # The last file has no log; the record before it is lost.
        made.data_file(last).write_bytes(b"")
        empty = START.record(last, None, None).pack()
        path.write_bytes(data[: -2 * INDEX_RECORD_SIZE] + empty)
        with pytest.raises(IntegrityError, match=f"/{last - 1}: this data file has no index record"):
            await made.reader.tail()


async def test_log_before_the_round_is_a_gap_and_not_skipped() -> None:
    async with a_round(first_lsn=64 << 10) as made:
        await made.write(chunk=3000, close_every=3)
        with pytest.raises(LogGapError, match=r"\[100, 65536\)"):
            await made.read(100, made.store.end_lsn)
        with pytest.raises(LogGapError):
            await made.read(made.store.first_lsn, made.store.end_lsn + 1)


async def test_every_flipped_bit_of_a_data_file_is_noticed() -> None:
    async with a_round(groups=4) as made:
        await made.write(chunk=1000)
        path = made.data_file(2)
        whole = path.read_bytes()
        rng = random.Random(1)
        for bit in rng.sample(range(len(whole) * 8), 300):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(IntegrityError) as damage:
                await made.read(0, made.store.end_lsn)
            assert damage.value.where["path"].endswith("/2")


async def test_an_index_file_is_closed_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mover.datapath.index_writer.INDEX_FILE_LIMIT", 3 * INDEX_RECORD_SIZE)
    async with a_round(groups=80) as made:
        await made.write(chunk=2000, close_every=1)
        sizes = [info.size for _, info in await made.repository.numbered(made.reader._index_dir)]
        assert len(sizes) > 2 and set(sizes[:-1]) == {3 * INDEX_RECORD_SIZE}
        assert await made.read(0, made.store.end_lsn) == made.store.log_until(0, made.store.end_lsn)


async def test_a_data_file_is_closed_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 4000
    monkeypatch.setattr("mover.datapath.log_packer.DATA_FILE_LIMIT", limit)
    async with a_round(groups=60) as made:
        await made.write(chunk=1500, flush_every=3)
        sizes = [size for _, size in await made.reader.data_files()]
        assert len(sizes) > 4 and max(sizes) <= limit
        assert await made.read(0, made.store.end_lsn) == made.store.log_until(0, made.store.end_lsn)


async def test_a_data_file_holds_no_more_log_than_its_reader_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mover.datapath.log_packer.RAW_FILE_LIMIT", 9000)
    async with a_round(groups=60) as made:
        await made.write(chunk=3000, flush_every=3)
        summaries = [await made.reader.load(number, None) for number, _ in await made.reader.data_files()]
        assert max(summary.input_bytes for summary in summaries) <= 9000
        assert await made.read(0, made.store.end_lsn) == made.store.log_until(0, made.store.end_lsn)


async def test_an_index_that_lost_records_is_named() -> None:
    async with a_round(groups=60) as made:
        await made.write(chunk=3000, close_every=2, close=False)
        await made.reader.check_files()
        path = made.index_file(1)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) - INDEX_RECORD_SIZE])
        with pytest.raises(IntegrityError, match="has no index record") as lost:
            await made.reader.check_files()
        assert lost.value.where["path"].endswith(f"/index/{PG}/1")
