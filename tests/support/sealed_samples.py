"""Small encrypted files: frames, a manifest, archive blocks, and the key ring."""

from __future__ import annotations

import asyncio
import random
from unittest.mock import patch

from media_samples import LAYOUT, PG, ROUND, T0, TENANT, block_bytes, block_meta, facts, manifest_blocks, palf_entries

from mover.encryption.cipher import DataKey, Keys, Sealer
from mover.encryption.keyring import OpenRing
from mover.encryption.sources import Passphrase
from mover.media.archive import ArchiveBlockMeta, block_size, seal_block
from mover.media.frames import end_mark, sealed_frame
from mover.media.header import DataType
from mover.media.key_file import encode_key_ring
from mover.media.macro import MACRO_SUFFIX, MacroIndex, MacroIndexWriter, group_key, macro_prefix
from mover.media.manifest import ManifestWriter
from mover.media.sealed import Sealing, place_of
from mover.media.sealed_log import LEAD, OVERHEAD, public, seal_payload

KEY = DataKey(b"key-id-1", bytes(range(32)))
KEYS = Keys({KEY.id: KEY}, current=KEY.id)
MACRO = LAYOUT.macro_block(TENANT, 1, PG, 1, 0)
MACRO_INDEX = LAYOUT.macro_block_index(TENANT, 1, PG, 1)
META = LAYOUT.meta_file(TENANT, 1, 1, 0)
MANIFEST = LAYOUT.manifest(TENANT, 1, 1)
LOG = LAYOUT.archive_data(TENANT, ROUND, PG, 2)
ENCRYPTED = {"encryption": {"cipher": "aes-256-gcm", "key_id": KEY.name}}


def sealing(path: str) -> Sealing:
    return Sealing(Sealer(KEY), place_of(path))


def sealed_macro_file() -> bytes:
    block, how = block_bytes(5), sealing(MACRO)
    payload = macro_prefix(block_meta(5).pack(), len(block)) + block + MACRO_SUFFIX
    return sealed_frame(DataType.MACRO_DATA, payload, how, offset=0) + end_mark()


def sealed_index_file() -> bytes:
    writer = MacroIndexWriter(sealing(MACRO_INDEX))
    writer.group(group_key(PG, kind=1, tablet_id=200_001), [MacroIndex(0, 1, 0, 1, 0, 0, 4096)], 1)
    return writer.finish()


def sealed_manifest(**changes: object) -> bytes:
    writer = ManifestWriter(facts(extra=ENCRYPTED, **changes), sealing(MANIFEST))
    writer.add_blocks(manifest_blocks())
    writer.add_file("1/data/backup_set_1/backup_1/meta_file_0", 8192, b"m" * 16)
    return writer.finish()


def sealed_block(payload: bytes, offset: int, meta: ArchiveBlockMeta, path: str = LOG) -> bytes:
    buffer = memoryview(bytearray(block_size(len(payload) + OVERHEAD)))
    buffer[104 + LEAD : 104 + LEAD + len(payload)] = payload
    seal_payload(buffer[104:], len(payload), meta, sealing(path), offset=offset)
    seal_block(buffer, public(meta), offset=offset)
    return bytes(buffer)


def sealed_archive() -> bytes:
    data, accum = b"", 0
    for first, count in ((11, 3), (14, 2)):
        raw, accum = palf_entries(first, count, accum)
        last = first + count - 1
        meta = ArchiveBlockMeta(T0, 3, accum, 11, T0 + 11, last, T0 + last, T0 + last, len(raw))
        data += sealed_block(raw, len(data), meta)
    return data


def key_ring() -> bytes:
    return encode_key_ring(asyncio.run(OpenRing.create((Passphrase("correct horse"),), T0)).ring)


def sealed_samples() -> dict[str, tuple[str, bytes]]:
    """As :func:`media_samples.samples`; the same bytes every time, which no real writer would make."""
    with patch("os.urandom", random.Random(5).randbytes):
        return _made()


def _made() -> dict[str, tuple[str, bytes]]:
    return {
        "macro encrypted": (MACRO, sealed_macro_file()),
        "macro index encrypted": (MACRO_INDEX, sealed_index_file()),
        "manifest encrypted": (MANIFEST, sealed_manifest()),
        "archive encrypted": (LOG, sealed_archive()),
        "key ring": (LAYOUT.key_ring(1), key_ring()),
    }
