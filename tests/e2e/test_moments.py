"""Restores to moments that nobody prepared: exactly the transactions up to the SCN, not one more and not one less."""

import asyncio
import random
import re

import pytest
from engine_load import check
from marks import found_marks

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _numbers(kind, data):
    return {int(n) for n in re.findall(rb"<%s (\d{8})>" % kind, data)}


async def _crowd(copy):
    return {n for (n,) in await copy.query("SELECT n FROM marks.crowd")}


async def test_any_scn_gives_the_transactions_up_to_it(story):
    rng = random.Random(20)
    site = story.site
    # Marks 1 to 3 were there before the first set.
    chosen = rng.sample(range(4, story.marks.last), 3 if site.kind == "file" else 1)

    async def one(n):
        scn = rng.randint(story.marks.scns[n], story.marks.scns[n + 1])
        there, possible = story.marks.at(scn)
        async with site.restored("--until-scn", scn) as copy:
            assert copy.report["until_scn"] == scn
            assert there <= await found_marks(copy.options) <= possible
            await check(copy.options, {}, at_most=story.load.committed, row_bytes=200)

    await asyncio.gather(*map(one, chosen))


async def test_the_nanosecond_of_a_commit_decides(file_story):
    """At the SCN of its commit a transaction is there, one earlier it is not, one later nothing else came."""
    site, marks = file_story.site, file_story.marks
    commits = {n: entry.scn for entry in file_story.entries for n in _numbers(b"mark", entry.data)}
    n = random.Random(3).choice([n for n in commits if n > 5 and n + 1 in commits])
    assert marks.scns[n - 1] < commits[n] <= marks.scns[n] < commits[n + 1], "the log and the marks disagree"

    async def one(scn, expected):
        async with site.restored("--until-scn", scn) as copy:
            assert await found_marks(copy.options) == expected

    await asyncio.gather(one(commits[n] - 1, n - 1), one(commits[n], n), one(commits[n] + 1, n))


async def test_a_cut_inside_a_log_group(story):
    """Transactions that were committed together share a log group; the moment divides it."""
    site = story.site
    crowd = [(entry, _numbers(b"crowd", entry.data)) for entry in story.entries]
    crowd = [(entry, numbers) for entry, numbers in crowd if numbers]
    assert len(set().union(*(numbers for _, numbers in crowd))) == story.marks.crowded, "the log was not found"
    inside = [entry for entry, _ in crowd if entry.position < entry.siblings - 1]
    assert inside, "the engine put no two transactions into one group"
    chosen = random.Random(8).sample(inside, min(len(inside), 2 if site.kind == "file" else 1))

    async def one(entry):
        expected = set().union(*(numbers for other, numbers in crowd if other.scn <= entry.scn))
        async with site.restored("--until-scn", entry.scn) as copy:
            assert await _crowd(copy) == expected

    await asyncio.gather(*map(one, chosen))


async def test_the_edges_of_the_window(file_story):
    site = file_story.site
    window = await site.window()

    async def one(scn):
        async with site.restored("--until-scn", scn) as copy:
            there, possible = file_story.marks.at(scn)
            assert there <= await found_marks(copy.options) <= possible

    await asyncio.gather(one(window["from_scn"]), one(window["until_scn"]))
    for scn in (window["from_scn"] - 1, window["until_scn"] + 1):
        refused = await site.mover.run("restore", "--target", site.new_target(), "--until-scn", scn)
        assert refused.code == 4
        assert f"SCN {window['from_scn']} to {window['until_scn']}" in refused.error["hint"]
