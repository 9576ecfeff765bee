"""A destination for the log of a tiny cluster, and the state that goes with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tiny_cluster import TinyCluster

from mover.config import Settings
from mover.media.archive import check_chain, scan_data_file
from mover.media.archive_index import parse_archive_key
from mover.media.layout import Layout
from mover.media.pg import PGKey
from mover.rootservice import archive
from mover.rootservice.session import open_session


class Place:
    """A destination and the state that goes with it."""

    def __init__(self, root: Path, cluster: TinyCluster, **settings: object) -> None:
        self.root = root
        self.dest = root / "dest"
        self.dest.mkdir()
        self.settings = Settings(
            source=cluster.url,
            dest=f"file://{self.dest}",
            state_dir=root / "state",
            cluster_name=cluster.name,
            flush_interval=0.05,
            **settings,
        )
        self.events: list[object] = []

    def run(self, body, *, need_source: bool = True):
        async def whole():
            async with open_session(self.settings, need_source=need_source, emit=self.events.append) as session:
                return await body(session)

        return asyncio.run(whole())

    def start(self):
        return self.run(archive.start)

    def catch_up(self):
        return self.run(lambda session: archive.run(session, until_caught_up=True, stop=asyncio.Event()))

    def archived(self, round_id: int, key: tuple[int, int, int]) -> list[bytes]:
        """The entries of a PG, verified by ids and running checksum, from the files alone."""
        layout, found = Layout(self.settings.cluster_name, 1), PGKey(*key)
        tenant = found.tenant_id
        begin = parse_archive_key((self.dest / layout.archive_key(tenant, round_id, found)).read_bytes()).index
        state = begin.round_accum_checksum, begin.round_start_log_id
        entries: list[bytes] = []
        directory = self.dest / layout.archive_data_dir(tenant, round_id, found)
        for path in sorted(directory.iterdir(), key=lambda path: int(path.name)):
            scanned = scan_data_file(path.read_bytes())
            assert scanned.torn is None or scanned.torn.followed_by is None
            blocks = scanned.blocks
            if blocks and blocks[0].kickoff() is not None:
                blocks = blocks[1:]
            state = check_chain(blocks, *state)
            entries += [block.raw() for block in blocks]
        return entries


def truth(cluster: TinyCluster, key: tuple[int, int, int]) -> bytes:
    return b"".join(cluster.logs[key].entries[: cluster.confirmed[key]])
