"""``clog/<round>/mover_round``: what mover keeps about an archive round beside OceanBase's own files.

Who archives (and with which epoch), the exact checkpoint (OceanBase's info file has microseconds and no LSN), byte
counters, and the missing range when the round was interrupted. One common header and a canonical JSON object; rewritten
whole with every checkpoint. A tree without it still restores: the log files themselves say how far they reach.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mover.errors import FormatError
from mover.kernel import ob_crc64
from mover.media.header import HEADER_SIZE, CommonHeader, DataType, parse_header
from mover.media.layout import ROUND_RECORD_NAME, STOP_REQUEST_NAME
from mover.media.meta import canonical_json, parse_json

__all__ = ["ROUND_RECORD_NAME", "STOP_REQUEST_NAME", "LogGap", "RoundRecord"]

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class LogGap:
    """Log that was lost before it could be archived."""

    from_lsn: int
    until_lsn: int  # exclusive; the first byte that was still there
    from_scn: int  # the last SCN that was archived
    seen_us: int  # when it was found
    reason: str


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """See the module. Times in us, SCNs in ns, LSNs in bytes."""

    round_id: int
    holder: str  # host/pid/start of the archiver, "" when none runs
    epoch: int
    heartbeat_us: int
    start_lsn: int
    start_scn: int
    checkpoint_lsn: int
    checkpoint_scn: int
    caught_up_us: int = 0  # all log committed by this moment is durable; what lag is measured from
    input_bytes: int = 0
    output_bytes: int = 0
    gap: LogGap | None = None
    keys: tuple[str, ...] = ()  # ids of the data keys that log of it is encrypted with; written when there are any

    def encode(self) -> bytes:
        """The whole file."""
        value = dataclasses.asdict(self)
        if not self.keys:
            del value["keys"]
        payload = canonical_json(value).encode()
        header = CommonHeader(DataType.ROUND_RECORD, len(payload), len(payload), ob_crc64(payload))
        return header.pack() + payload

    @classmethod
    def decode(cls, data: Buffer) -> RoundRecord:
        """Raises FormatError unless these are exactly the bytes :meth:`encode` makes."""
        header = parse_header(data, data_type=DataType.ROUND_RECORD)
        payload = bytes(data[HEADER_SIZE:])
        header.check_payload(payload)
        if header.align_length or header.data_length != len(payload):
            raise FormatError("bad round record: expected no padding and no compression", offset=0)
        try:
            text = payload.decode()
        except UnicodeDecodeError as exc:
            raise FormatError(f"bad round record: not UTF-8 at offset {HEADER_SIZE + exc.start}") from None
        record = cls._from_json(parse_json(text, "round record"))
        if record.encode() != bytes(data):
            raise FormatError("bad round record: not in canonical form", offset=HEADER_SIZE)
        return record

    @classmethod
    def _from_json(cls, value: Any) -> RoundRecord:
        if not isinstance(value, dict):
            raise FormatError("bad round record: expected an object", offset=HEADER_SIZE)
        names = {field.name for field in dataclasses.fields(cls)} - {"keys"}
        keys = value.pop("keys", [])
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise FormatError("bad round record: expected keys as a list of texts", offset=HEADER_SIZE)
        if value.keys() != names:
            raise FormatError(f"bad round record: expected the members {sorted(names)}", offset=HEADER_SIZE)
        gap = value.pop("gap")
        gap_names = {field.name for field in dataclasses.fields(LogGap)}
        if gap is not None and (not isinstance(gap, dict) or gap.keys() != gap_names):
            raise FormatError(f"bad round record: expected gap to have {sorted(gap_names)}", offset=HEADER_SIZE)
        for name, found in [*value.items(), *(gap or {}).items()]:
            wanted = str if name in {"holder", "reason"} else int
            if type(found) is not wanted:
                raise FormatError(f"bad round record: {name} is not {wanted.__name__}", offset=HEADER_SIZE)
        return cls(**value, gap=None if gap is None else LogGap(**gap), keys=tuple(keys))
