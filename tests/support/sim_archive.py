"""A synthetic cluster, and the place where its log and its backups go."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

from mover.config import Settings
from mover.media.archive import iter_blocks
from mover.media.archive_index import parse_archive_key
from mover.media.layout import Layout
from mover.media.log_entry import iter_log_entries, next_accum
from mover.media.pg import PGKey
from mover.rootservice import archive
from mover.rootservice.session import open_session
from mover.store.sim.cluster import Plan, create


class Archive:
    """A synthetic cluster and the place where its log goes."""

    def __init__(self, root: Path, **plan: Any) -> None:
        self.cluster, self.dest = root / "cluster", root / "dest"
        self.dest.mkdir()
        create(self.cluster, Plan(**plan))
        self.settings = Settings(
            source=f"sim://{self.cluster}",
            dest=f"file://{self.dest}",
            state_dir=root / "state",
            cluster_name="synthetic",
            compression="none",
            archive_wait=0,
        )

    def run(self, body, *, need_source: bool = True) -> Any:
        async def whole() -> Any:
            async with open_session(self.settings, need_source=need_source) as session:
                return await body(session)

        return asyncio.run(whole())

    def catch_up(self) -> None:
        self.run(lambda session: archive.run(session, until_caught_up=True, stop=asyncio.Event()))

    def ledger(self) -> dict[str, Any]:
        return json.loads((self.cluster / "ledger.json").read_text())

    def check(self) -> int:
        """Everything that is archived is what the ledger says; how many logs that is."""
        layout, count = Layout("synthetic", 1), 0
        for pg in self.ledger()["pgs"]:
            truth = {row[0]: row for row in pg["logs"]}
            # At least what the slowest replica knows to be confirmed, never what nobody confirmed.
            confirmed = [max(r["max_confirmed_log_id"], r["ilog_log_id"]) for r in pg["replicas"]]
            directory = self.dest / layout.archive_data_dir(pg["tenant_id"], 1, key_of(pg))
            key = self.dest / layout.archive_key(pg["tenant_id"], 1, key_of(pg))
            begin = parse_archive_key(key.read_bytes()).index
            expected, accum = begin.round_start_log_id, begin.round_accum_checksum
            for path in sorted(directory.iterdir(), key=lambda path: int(path.name)):
                for block in iter_blocks(path.read_bytes()):
                    if block.kickoff() is not None:
                        continue
                    for entry in iter_log_entries(block.raw()):
                        header = entry.header
                        accum = next_accum(accum, header.data_checksum)
                        assert (header.log_id, header.pg) == (expected, key_of(pg))
                        expected += 1
                        row = truth.get(header.log_id)
                        if row is None:
                            assert header.log_id < pg["start_log_id"]
                            continue
                        raw = bytearray(header.pack() + entry.body)
                        raw[73] &= 0x7F  # the mark of a batch commit is the archive's
                        assert (header.submit_timestamp, accum & (1 << 64) - 1) == (row[1], row[2] & (1 << 64) - 1)
                        assert hashlib.sha256(raw).hexdigest() == row[3]
                        count += 1
                    assert block.meta.accum_checksum == accum
            assert min(confirmed) < expected <= max(confirmed) + 1
            # The oldest log whose predecessor's running checksum is known: at most one later than the oldest.
            assert begin.round_start_log_id <= pg["start_log_id"] + 1
        return count


def key_of(pg: dict[str, Any]) -> PGKey:
    return PGKey.of_partition(pg["table_id"], pg["partition_id"], pg["partition_cnt"])
