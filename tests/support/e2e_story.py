"""What happens at a site before the tests look at it: everything that the command line is for, once, in order."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import engine_load
from engine_load import Load, connect
from log_scns import Entry, entries
from marks import Marks
from mover_process import Ran
from site_of_tests import Site
from table_prints import table_prints

_KINDS = {
    "plain": "id INT PRIMARY KEY, v VARCHAR(2000)) COMPRESSION = 'none'",
    "zstd": "id INT PRIMARY KEY, v VARCHAR(2000)) COMPRESSION = 'zstd_1.3.8'",
    "parts": "id INT PRIMARY KEY, v VARCHAR(2000)) PARTITION BY HASH(id) PARTITIONS 4",
    "lob": "id INT PRIMARY KEY, v LONGTEXT)",
}


@dataclass
class Moment:
    """A state of the source that a restore must reproduce."""

    scn: int
    text: str  # local time without a zone, as a person types it
    prints: dict[str, tuple[int, int]]


@dataclass
class Story:
    """The site, what each command said, and what the source was at the moments that matter."""

    site: Site
    load: Load
    marks: Marks
    said: dict[str, Ran] = field(default_factory=dict)
    moment: Moment | None = None
    end: Moment | None = None
    marks_at_end: int = 0
    committed: dict[int, int] = field(default_factory=dict)  # by the load, until the end
    entries: list[Entry] = field(default_factory=list)  # log entries of marks and of the crowd
    copy: Site | None = None  # the destination as it was at the end, for file destinations

    def __getitem__(self, name: str) -> dict[str, Any]:
        """What the command that was noted as ``name`` printed; it must have ended well."""
        return self.said[name].ok()

    async def run(self, name: str, *arguments: object) -> Ran:
        self.said[name] = await self.site.mover.run(*arguments)
        return self.said[name]


async def tell(site: Site) -> Story:
    """Archive, full, freezes, incremental, a moment, destruction; the archiver is stopped at the end."""
    options = site.options
    story = Story(site, Load(options, row_bytes=200), Marks(options))
    await story.run("backup too early", "backup", "full")
    await story.run("run too early", "archivelog", "run", "--until-caught-up")
    await story.run("start", "archivelog", "start")
    await story.run("start again", "archivelog", "start")
    await site.archive()
    await story.load.create()
    await story.marks.create()
    await _fill(options, range(14_000))
    await story.marks.write(3)
    await engine_load.major_compaction(options)
    story.load.start()
    await story.run("full", "backup", "full")
    await story.load.until(20)
    await story.load.stop()
    await engine_load.minor_freeze(options)
    await story.marks.write(15)
    await _fill(options, range(14_000, 15_000))
    await engine_load.major_compaction(options)
    await story.marks.write(5)
    await story.run("incremental", "backup", "incremental")
    crowd = await _crowd(story)
    await story.marks.write(15)
    # Now: the engine recycles its log.
    story.entries = crowd + await asyncio.to_thread(lambda: list(entries(site.server.base_dir, b"<mark ")))
    story.moment = await _moment(options)
    for statement in (
        "DELETE FROM kinds.plain WHERE id % 3 = 0",
        "UPDATE kinds.zstd SET v = 'gone' WHERE id < 500",
        "DROP TABLE kinds.lob",
        "TRUNCATE TABLE kinds.parts",
        "CREATE TABLE kinds.late (id INT PRIMARY KEY)",
    ):
        await site.query(statement)
    await story.marks.write(5)
    story.end = await _moment(options)
    await site.archived(story.end.scn)
    await site.stop_archiver()
    # Later tests go on with the site; what was true at the end of the story stays.
    story.marks_at_end, story.committed = story.marks.last, dict(story.load.committed)
    if site.tree is not None:
        story.copy = copy_tree(site, "copy")
    return story


async def _crowd(story: Story) -> list[Entry]:
    """Transactions until one has others behind it in its log group; which do is up to the engine. Their log entries."""
    for _ in range(20):
        await story.marks.crowd()
        found = await asyncio.to_thread(lambda: list(entries(story.site.server.base_dir, b"<crowd ")))
        if any(entry.position < entry.siblings - 1 for entry in found):
            break
    return found


async def _fill(options: dict[str, Any], ids: range) -> None:
    """Rows in every kind of table; text that compresses to about half."""
    fresh = ids.start == 0
    rng = random.Random(ids.start)
    if fresh:
        await engine_load.query(options, "CREATE DATABASE kinds")
        for name, definition in _KINDS.items():
            await engine_load.query(options, f"CREATE TABLE kinds.{name} ({definition}")

    async def fill(name: str, width: int, chosen: range) -> None:
        connection = await connect(options)
        try:
            async with connection.cursor() as cursor:
                step = max(1, 300_000 // width)
                for first in range(chosen.start, chosen.stop, step):
                    rows = [
                        f"({i},'{rng.randbytes(width // 2).hex()}')"
                        for i in range(first, min(first + step, chosen.stop))
                    ]
                    await cursor.execute(f"INSERT INTO kinds.{name} VALUES {','.join(rows)}")
        finally:
            await connection.ensure_closed()

    few = range(ids.start // 200, ids.stop // 200)
    await asyncio.gather(
        fill("plain", 1500, ids), fill("zstd", 600, ids), fill("parts", 400, ids), fill("lob", 60_000, few)
    )


async def _moment(options: dict[str, Any]) -> Moment:
    """The state now, as of an SCN and of a clock time that has everything before it and nothing after it."""
    prints = await table_prints(options)
    scn = await engine_load.scn_now(options)
    while time.time_ns() <= scn:
        await asyncio.sleep(0.001)
    text = datetime.now().strftime("%Y-%m-%d %H:%M:%S.%f")
    # The next commit must be later than the microsecond that was typed.
    await asyncio.sleep(0.01)
    return Moment(scn, text, prints)


def copy_tree(site: Site, name: str) -> Site:
    """A site whose destination is a copy of a file tree; its source is the same."""
    assert site.tree is not None
    directory = site.directory / name
    tree = directory / "dest"
    shutil.copytree(site.tree, tree)
    mover = site.mover.but(directory / "home", dest=tree.as_uri())
    return Site(site.kind, directory, site.server, mover, tree)
