"""What every destination promises (mover/target/base.py), on each of them."""

import asyncio
import mmap
import os
import random

import pytest
from lent import LentPart

from mover.errors import TargetError, TargetExists, TargetNotFound
from mover.target.base import BytesPart

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNUSUAL_NAMES = [
    "plain",
    "with space",
    "percent%20and+plus",
    "question?and=amp&",
    "hash#tag",
    "unicode-备份-é",
    "quote'\"<>",
    "colon:semi;comma,",
    "dots..inside",
    ".hidden",
    "tilde~star*",
    "macro_block_1.0",
    "n" * 200,
]
HOSTILE_PATHS = [
    "",
    "/abs",
    "../up",
    "a/../b",
    "a//b",
    "a/",
    "a/./b",
    "nul\0",
    "new\nline",
    "x.tmp.1700000000",
    "n" * 256,
]


def _ignores_conditions(target):
    """A store that takes ``If-None-Match: *`` and replaces the object all the same."""
    return _served_by(target, "juicefs") or _served_by(target, "rclone")


def _served_by(target, name):
    return getattr(target, "served_by", "") == name


async def paths(target, prefix):
    return [info.path async for info in target.list(prefix)]


async def write_file(target, path, *pieces):
    writer = await target.create(path)
    for piece in pieces:
        await writer.write(BytesPart(piece))
    return await writer.commit()


async def test_put_then_read_back(target, base):
    info = await target.put(f"{base}/dir/file", b"hello")
    assert (info.path, info.size) == (f"{base}/dir/file", 5)
    assert await target.get(f"{base}/dir/file") == b"hello"
    found = await target.stat(f"{base}/dir/file")
    assert found is not None and found.size == 5
    assert abs(found.modified_us - info.modified_us) < 5_000_000
    assert info.modified_us > 1_700_000_000_000_000


@pytest.mark.parametrize("content", [b"", bytearray(b"array"), memoryview(b"view")], ids=["empty", "bytearray", "view"])
async def test_put_takes_any_buffer(target, base, content):
    await target.put(f"{base}/f", content)
    assert await target.get(f"{base}/f") == bytes(content)


async def test_put_replaces_and_is_idempotent(target, base):
    for content in (b"one", b"one", b"two, longer"):
        await target.put(f"{base}/f", content)
        assert await target.get(f"{base}/f") == content


async def test_put_if_absent_refuses_a_taken_name(target, base):
    await target.put(f"{base}/f", b"first", if_absent=True)
    with pytest.raises(TargetExists):
        await target.put(f"{base}/f", b"second", if_absent=True)
    assert await target.get(f"{base}/f") == b"first"
    assert await paths(target, f"{base}/") == [f"{base}/f"]


async def test_put_if_absent_race_has_one_winner(target, base):
    one = not _ignores_conditions(target)
    for round_ in range(5):
        contents = [f"writer {n} in round {round_}".encode() for n in range(4)]
        results = await asyncio.gather(
            *(target.put(f"{base}/{round_}", content, if_absent=True) for content in contents), return_exceptions=True
        )
        losers = [result for result in results if isinstance(result, TargetError)]
        winners = [content for content, result in zip(contents, results, strict=True) if result not in losers]
        if one:
            assert len(winners) == 1, results
            assert all(isinstance(loser, TargetExists) for loser in losers)
        # Otherwise the name is looked at before and after: nobody who reads it finds what no writer was told of.
        assert await target.get(f"{base}/{round_}") in winners


async def test_missing_file(target, base):
    assert await target.stat(f"{base}/missing") is None
    with pytest.raises(TargetNotFound):
        await target.get(f"{base}/missing")
    with pytest.raises(TargetNotFound):
        await target.get(f"{base}/missing", 0, 0)
    with pytest.raises(TargetNotFound):
        async for _ in target.stream(f"{base}/missing"):
            pass
    await target.delete(f"{base}/missing")


async def test_a_directory_is_no_file(target, base):
    await target.put(f"{base}/dir/file", b"x")
    assert await target.stat(f"{base}/dir") is None
    with pytest.raises(TargetNotFound):
        await target.get(f"{base}/dir")
    if not _served_by(target, "rclone"):  # serves a directory, and answers with InternalError that it is not empty
        await target.delete(f"{base}/dir")
    assert await target.get(f"{base}/dir/file") == b"x"


async def test_delete(target, base):
    await target.put(f"{base}/dir/sub/f", b"x")
    await target.delete(f"{base}/dir/sub/f")
    assert await target.stat(f"{base}/dir/sub/f") is None
    assert await paths(target, f"{base}/") == []
    await target.delete(f"{base}/dir/sub/f")
    await target.put(f"{base}/dir/sub/f", b"again")
    assert await target.get(f"{base}/dir/sub/f") == b"again"


async def test_delete_many(target, base):
    names = [f"{base}/dir/{n} é&<+>" for n in range(23)]
    await asyncio.gather(*(target.put(name, b"x") for name in [*names, f"{base}/kept"]))
    with pytest.raises(TargetError):
        await target.delete_many([*names, "../up"])
    assert len(await paths(target, f"{base}/")) == 24
    for _ in range(2):
        await target.delete_many([*names, names[0], f"{base}/never there"])
        assert await paths(target, f"{base}/") == [f"{base}/kept"]
    await target.delete_many([])


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (10, None, b""),
        (0, 0, b""),
        (10, 0, b""),
        (0, 1, b"0"),
        (9, 1, b"9"),
        (2, 5, b"23456"),
        (0, 10, b"0123456789"),
    ],
)
async def test_ranges(target, base, start, length, expected):
    await target.put(f"{base}/f", b"0123456789")
    assert await target.get(f"{base}/f", start, length) == expected
    pieces = [piece async for piece in target.stream(f"{base}/f", start, length, chunk=3)]
    assert b"".join(pieces) == expected
    assert all(0 < len(piece) <= 3 for piece in pieces)


@pytest.mark.parametrize(
    ("start", "length"), [(0, 11), (10, 1), (11, None), (11, 0), (5, 6), (-1, 2), (0, -1), (1 << 40, 5)]
)
async def test_a_range_behind_the_end_is_an_error(target, base, start, length):
    await target.put(f"{base}/f", b"0123456789")
    with pytest.raises(TargetError) as caught:
        await target.get(f"{base}/f", start, length)
    assert not isinstance(caught.value, TargetNotFound)
    with pytest.raises(TargetError):
        async for _ in target.stream(f"{base}/f", start, length):
            pass


@pytest.mark.parametrize("shift", [0, 1, 512])
async def test_read_into(target, base, shift):
    """Any place and length, into memory of any alignment; nothing outside the buffer is touched."""
    content = random.Random(3).randbytes((5 << 20) + 4099)
    await write_file(target, f"{base}/f", content)
    memory = memoryview(mmap.mmap(-1, 8 << 20))
    end = len(content)
    for start, length in (
        (0, 0), (0, 1), (0, 4096), (0, end), (4096, 2 << 20), (4096, 4097), (1, 8191), (end, 0), (end - 1, 1),
        (end - 4099, 4099), (end - 3, 3), (5 << 20, 4099), (5 << 20, 4096), (4095, 1 << 20),
    ):  # fmt: skip
        memory[:] = b"\xaa" * len(memory)
        await target.read_into(f"{base}/f", start, memory[shift : shift + length])
        assert memory[shift : shift + length] == content[start : start + length], (start, length)
        assert bytes(memory[:shift]) == b"\xaa" * shift
        assert bytes(memory[shift + length :]).count(b"\xaa") == len(memory) - shift - length, (start, length)


async def test_many_reads_at_once_into_one_buffer(target, base):
    content = random.Random(4).randbytes(8 << 20)
    await write_file(target, f"{base}/f", content)
    memory = memoryview(mmap.mmap(-1, 8 << 20))
    step = 1 << 19
    await asyncio.gather(
        *(target.read_into(f"{base}/f", at, memory[at : at + step]) for at in range(0, len(content), step))
    )
    assert memory == content


async def test_read_into_what_is_not_there(target, base):
    buffer = memoryview(bytearray(10))
    with pytest.raises(TargetNotFound):
        await target.read_into(f"{base}/f", 0, buffer)
    await target.put(f"{base}/f", b"0123456789")
    for start in (1, 10, 11, 1 << 40, -1):
        with pytest.raises(TargetError) as caught:
            await target.read_into(f"{base}/f", start, buffer)
        assert not isinstance(caught.value, TargetNotFound)
    with pytest.raises(TargetError):
        await target.read_into("../f", 0, buffer)


async def test_read_into_follows_the_name(target, base):
    """A file that was replaced or deleted between two reads is not read from the one that is still open."""
    buffer = memoryview(bytearray(4))
    await target.put(f"{base}/f", b"old!")
    await target.read_into(f"{base}/f", 0, buffer)
    await target.put(f"{base}/f", b"new!")
    await target.read_into(f"{base}/f", 0, buffer)
    assert bytes(buffer) == b"new!"
    await target.delete(f"{base}/f")
    with pytest.raises(TargetNotFound):
        await target.read_into(f"{base}/f", 0, buffer)
    await target.put(f"{base}/f", b"more")
    await target.read_into(f"{base}/f", 0, buffer)
    assert bytes(buffer) == b"more"


@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.002, 0.01])
async def test_a_cancelled_read_lets_go_of_the_buffer(target, base, delay):
    await write_file(target, f"{base}/f", b"\x11" * (8 << 20))
    buffer = memoryview(mmap.mmap(-1, 8 << 20))
    task = asyncio.create_task(target.read_into(f"{base}/f", 0, buffer))
    await asyncio.sleep(delay)  # not a wait for something: the moment of the cancel is what varies
    task.cancel()
    await asyncio.wait([task])
    buffer[:] = bytes(len(buffer))
    assert await target.get(f"{base}/f", 0, 5) == b"\x11" * 5
    assert bytes(buffer).count(0) == len(buffer)


async def test_stream_can_be_left_early(target, base):
    await target.put(f"{base}/f", bytes(100_000))
    pieces = target.stream(f"{base}/f", chunk=1000)
    async for piece in pieces:
        assert len(piece) == 1000
        break
    await pieces.aclose()


async def test_list_order_and_prefixes(target, base):
    names = ["a/1", "a/10", "a/1/x", "a/2", "a.b", "a-b", "a/1.5", "b", "a0"]
    if target.capabilities.append:
        names.remove("a/1")  # a directory there; a bucket may have both
    else:
        names.remove("a/1/x")  # SeaweedFS is a file system inside and can not have both either
    for name in names:
        await target.put(f"{base}/{name}", name.encode())
    expected = sorted(f"{base}/{name}" for name in names)
    assert await paths(target, f"{base}/") == expected
    for prefix in ("a", "a/", "a/1", "a/1/", "a/10", "b", "c", "a."):
        assert await paths(target, f"{base}/{prefix}") == [p for p in expected if p.startswith(f"{base}/{prefix}")], (
            prefix
        )
    sizes = {info.path: info.size async for info in target.list(f"{base}/")}
    assert sizes == {f"{base}/{name}": len(name) for name in names}
    assert await paths(target, f"{base}/none/") == []


async def test_list_from_the_root(target, base):
    await target.put(f"{base}/f", b"x")
    assert f"{base}/f" in await paths(target, "")
    assert f"{base}/f" in await paths(target, base[:3])


@pytest.mark.parametrize("name", UNUSUAL_NAMES, ids=lambda name: name[:12])
async def test_unusual_names(target, base, name):
    path = f"{base}/dir {name}/{name}"
    await target.put(path, b"put")
    assert await target.get(path) == b"put"
    assert await paths(target, f"{base}/") == [path]
    await target.delete(path)
    await write_file(target, path, b"written")
    found = await target.stat(path)
    assert found is not None and (found.path, found.size) == (path, 7)
    assert [piece async for piece in target.stream(path)] == [b"written"]


@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=lambda path: repr(path)[:14])
async def test_hostile_paths_are_refused(target, path):
    for call in (target.put(path, b"x"), target.create(path), target.get(path), target.stat(path), target.delete(path)):
        with pytest.raises(TargetError):
            await call
    with pytest.raises(TargetError):
        async for _ in target.stream(path):
            pass


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", "..", "nul\0"])
async def test_hostile_prefixes_are_refused(target, prefix):
    with pytest.raises(TargetError):
        await paths(target, prefix)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, (4 << 20) - 1, 4 << 20, (5 << 20) + 1, 12_345_678])
async def test_writer_round_trip(target, base, size):
    content = random.Random(size).randbytes(size)
    info = await write_file(target, f"{base}/f", content)
    assert info.size == size
    assert await target.get(f"{base}/f") == content
    assert await paths(target, f"{base}/") == [f"{base}/f"]


async def test_writer_takes_pieces_of_any_size(target, base):
    rng, least = random.Random(7), target.capabilities.min_part
    lengths = [rng.choice([0, 1, 100, 4096, 65_537, 1 << 20, (4 << 20) + 5]) for _ in range(6 if least else 30)]
    pieces = [b"", *(rng.randbytes(least + length) for length in lengths), b"", rng.randbytes(11)]
    await write_file(target, f"{base}/f", *pieces)
    assert await target.get(f"{base}/f") == b"".join(pieces)


async def test_parts_come_back_once_and_are_not_read_after_that(target, base):
    """Each part spoils its memory when it is released."""
    rng = random.Random(11)
    lengths = [2 << 20, 2 << 20, (2 << 20) - 1, 1, 4096, 0, 100, 4096, (6 << 20) + 8192, 3, 4093, 1 << 20, 1 << 20, 5]
    if least := target.capabilities.min_part:
        lengths = [least + length for length in lengths[:6]]
    parts = [LentPart(rng.randbytes(length), shift=shift) for shift in (0, 0, 64) for length in lengths]
    parts.append(LentPart(b"last"))
    expected = b"".join(part.data for part in parts)
    writer = await target.create(f"{base}/f")
    for part in parts:
        await writer.write(part)
    info = await writer.commit()
    assert info.size == len(expected)
    assert [part.releases for part in parts] == [1] * len(parts)
    assert await target.get(f"{base}/f") == expected


@pytest.mark.parametrize("count", [1, 4, 9])
async def test_parts_come_back_from_a_writer_that_is_aborted(target, base, count, unfinished):
    parts = [LentPart(bytes(5 << 20)) for _ in range(count)]
    writer = await target.create(f"{base}/f")
    for part in parts:
        await writer.write(part)
    await writer.abort()
    assert [part.releases for part in parts] == [1] * count
    late = LentPart(b"late")
    with pytest.raises(TargetError):
        await writer.write(late)
    assert late.releases == 1
    assert await unfinished() == []


async def test_a_part_that_is_too_small_and_not_the_last(target, base, unfinished):
    least = target.capabilities.min_part
    if not least:
        pytest.skip("this destination takes parts of any size")
    for sizes in ([least - 1, 1], [least, least - 1, least]):
        parts = [LentPart(bytes(size)) for size in sizes]
        writer = await target.create(f"{base}/f")
        with pytest.raises(TargetError, match=f"has {least - 1} bytes and is not the last"):
            for part in parts:
                await writer.write(part)
        with pytest.raises(TargetError):
            await writer.commit()
        await writer.abort()
        assert [part.releases for part in parts] == [1] * len(parts)
        assert await target.stat(f"{base}/f") is None
    assert await unfinished() == []


async def test_parts_come_back_from_a_cancelled_write(target, base, unfinished):
    parts = [LentPart(bytes(5 << 20)) for _ in range(24)]
    given = 0
    writer = await target.create(f"{base}/f")

    async def work():
        nonlocal given
        for part in parts:
            given += 1
            await writer.write(part)

    task = asyncio.create_task(work())
    while given < 8:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await writer.abort()
    assert [part.releases for part in parts] == [1] * given + [0] * (24 - given)
    assert await unfinished() == []


async def test_big_file_in_many_parts(target, base, unfinished):
    content = random.Random(40).randbytes(40 << 20)
    step = max(3_000_001, target.capabilities.min_part + 1)
    pieces = [content[at : at + step] for at in range(0, len(content), step)]
    info = await write_file(target, f"{base}/big", *pieces)
    assert info.size == len(content)
    back = b"".join([piece async for piece in target.stream(f"{base}/big", chunk=7 << 20)])
    assert back == content
    assert await target.get(f"{base}/big", 10_000_000, 20_000_000) == content[10_000_000:30_000_000]
    assert await unfinished() == []


async def test_nothing_is_visible_before_commit(target, base):
    writer = await target.create(f"{base}/dir/f")
    for _ in range(4):
        await writer.write(BytesPart(bytes(5 << 20)))
        assert await target.stat(f"{base}/dir/f") is None
        assert await paths(target, f"{base}/") == []
    await writer.commit()
    assert await paths(target, f"{base}/") == [f"{base}/dir/f"]


async def test_create_on_a_taken_name(target, base, unfinished):
    await target.put(f"{base}/f", b"published")
    with pytest.raises(TargetExists):
        writer = await target.create(f"{base}/f")
        await writer.commit()
    assert await target.get(f"{base}/f") == b"published"
    assert await unfinished() == []


@pytest.mark.parametrize("size", [10, 12 << 20])
async def test_a_name_taken_before_commit_is_not_replaced(target, base, unfinished, size):
    writer = await target.create(f"{base}/f")
    await writer.write(BytesPart(bytes(size)))
    await target.put(f"{base}/f", b"published")
    with pytest.raises(TargetExists):
        await writer.commit()
    await writer.abort()
    assert await target.get(f"{base}/f") == b"published"
    assert await paths(target, f"{base}/") == [f"{base}/f"]
    assert await unfinished() == []


@pytest.mark.parametrize("size", [0, 10, 20 << 20])
async def test_abort_leaves_nothing(target, base, unfinished, size):
    writer = await target.create(f"{base}/f")
    await writer.write(BytesPart(bytes(size)))
    await writer.abort()
    await writer.abort()
    assert await target.stat(f"{base}/f") is None
    assert await paths(target, f"{base}/") == []
    assert await unfinished() == []
    with pytest.raises(TargetError):
        await writer.write(BytesPart(b"x"))
    with pytest.raises(TargetError):
        await writer.commit()


async def test_abort_after_commit_keeps_the_file(target, base):
    writer = await target.create(f"{base}/f")
    await writer.write(BytesPart(b"kept"))
    await writer.commit()
    await writer.abort()
    assert await target.get(f"{base}/f") == b"kept"
    with pytest.raises(TargetError):
        await writer.commit()


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.01, 0.05, 0.15])
async def test_cancel_anywhere_then_abort_leaves_nothing(target, base, unfinished, delay):
    finished = False

    async def work():
        nonlocal finished
        writer = await target.create(f"{base}/f")
        try:
            for _ in range(8):
                await writer.write(BytesPart(os.urandom(3 << 20)))
            await writer.commit()
            finished = True
        except BaseException:
            await writer.abort()
            raise

    task = asyncio.create_task(work())
    await asyncio.sleep(delay)  # not a wait for something: the moment of the cancel is what varies
    task.cancel()
    await asyncio.wait([task])
    assert await paths(target, f"{base}/") == ([f"{base}/f"] if finished else [])
    assert await unfinished() == []


async def test_several_writers_at_once(target, base):
    """More writers than part buffers, fed in turn: none may wait for another one's buffer."""
    contents = [random.Random(n).randbytes(11 << 20) for n in range(6)]
    writers = [await target.create(f"{base}/{n}") for n in range(6)]
    step = max(1 << 20, target.capabilities.min_part)
    for at in range(0, 11 << 20, step):
        for writer, content in zip(writers, contents, strict=True):
            await asyncio.wait_for(writer.write(BytesPart(content[at : at + step])), 60)
    await asyncio.gather(*(writer.commit() for writer in writers))
    for n, content in enumerate(contents):
        assert await target.get(f"{base}/{n}") == content


async def test_append(target, base):
    path = f"{base}/dir/log"
    if not target.capabilities.append:
        with pytest.raises(TargetError):
            await target.append(path, 0, b"x")
        assert await target.stat(path) is None
        return
    await target.append(path, 0, b"one")
    await target.append(path, 3, b"two")
    assert await target.get(path) == b"onetwo"
    await target.append(path, 3, b"3")  # what was behind the offset was a torn tail
    assert await target.get(path) == b"one3"
    with pytest.raises(TargetError) as caught:
        await target.append(path, 5, b"x")
    assert caught.value.where["offset"] == 5
    with pytest.raises(TargetError):
        await target.append(path, -1, b"x")
    with pytest.raises(TargetNotFound):
        await target.append(f"{base}/dir/other", 1, b"x")
    await target.delete(path)
    await target.append(path, 0, b"new")
    assert await target.get(path) == b"new"
    await target.put(path, b"replaced")
    await target.append(path, 8, b"+")
    assert await target.get(path) == b"replaced+"


async def test_append_to_many_files(target, base):
    if not target.capabilities.append:
        pytest.skip("this destination has no append")
    for turn in range(3):
        await asyncio.gather(*(target.append(f"{base}/{n}", turn * 2, b"%d;" % turn) for n in range(150)))
    for n in range(150):
        assert await target.get(f"{base}/{n}") == b"0;1;2;"


async def test_check(target):
    await target.check()


async def test_parallel_small_files(target, base):
    names = [f"{base}/{n % 7}/{n}" for n in range(60)]
    await asyncio.gather(*(target.put(name, name.encode()) for name in names))
    assert await paths(target, f"{base}/") == sorted(names)
    assert await asyncio.gather(*(target.get(name) for name in names)) == [name.encode() for name in names]


async def test_what_an_unfinished_write_leaves_is_found_and_discarded(target, base):
    await target.put(f"{base}/dir/published", b"x")
    writer = await target.create(f"{base}/dir/unfinished")
    other = await target.create(f"{base}/other")
    try:
        for _ in range(3):
            await writer.write(BytesPart(bytes(5 << 20)))
            await other.write(BytesPart(bytes(5 << 20)))
        async with asyncio.timeout(30):
            while not (found := [left async for left in target.leftovers(f"{base}/dir/")]):
                await asyncio.sleep(0.05)  # a first part may be kept back until the second comes
        assert [left.path for left in found] == [f"{base}/dir/unfinished"]
        assert abs(found[0].begun_us - (await target.stat(f"{base}/dir/published")).modified_us) < 60_000_000
        assert [info.path async for info in target.list(base)] == [f"{base}/dir/published"]
        for _ in range(2):
            await target.discard(found[0])
        assert [left async for left in target.leftovers(f"{base}/dir/")] == []
        assert {left.path async for left in target.leftovers(base)} == {f"{base}/other"}
        assert await target.get(f"{base}/dir/published") == b"x"
    finally:
        await writer.abort()
        await other.abort()
    assert [left async for left in target.leftovers(base)] == []
