"""``mover_keys/<generation>``: the key ring of a destination. One common header and a canonical JSON object.

A change writes the next generation under its new name and removes the older ones; the highest number counts.
"""

from __future__ import annotations

from mover.encryption.keyring import KeyRing
from mover.errors import FormatError
from mover.kernel import ob_crc64
from mover.media.header import HEADER_SIZE, CommonHeader, DataType, parse_header
from mover.media.meta import canonical_json, parse_json
from mover.media.serial import Buffer


def encode_key_ring(ring: KeyRing) -> bytes:
    """The whole file."""
    payload = canonical_json(ring.as_json()).encode()
    header = CommonHeader(DataType.KEY_RING, len(payload), len(payload), ob_crc64(payload))
    return header.pack() + payload


def decode_key_ring(data: Buffer) -> KeyRing:
    """Raises FormatError unless these are exactly the bytes :func:`encode_key_ring` makes."""
    header = parse_header(data, data_type=DataType.KEY_RING)
    payload = bytes(data[HEADER_SIZE:])
    header.check_payload(payload)
    try:
        ring = KeyRing.from_json(parse_json(payload.decode(), "key ring"))
    except UnicodeDecodeError as exc:
        raise FormatError(f"bad key ring: not UTF-8 at offset {HEADER_SIZE + exc.start}") from None
    if encode_key_ring(ring) != bytes(data):
        raise FormatError("bad key ring: not in canonical form", offset=HEADER_SIZE)
    return ring
