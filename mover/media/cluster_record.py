"""``1/clog/<round>/mover_cluster``: what mover keeps about an archive round of a cluster beside OceanBase's own files.

Who archives (and with which epoch), how far each tenant is, byte counters, and what was lost when the round was
interrupted. One common header and a canonical JSON object; rewritten whole with every checkpoint. A tree without it
restores all the same, and a tenant's part of the tree has nothing of mover's: it is as OceanBase writes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from mover.errors import FormatError
from mover.kernel import ob_crc64
from mover.media.header import HEADER_SIZE, CommonHeader, DataType, parse_header
from mover.media.meta import canonical_json, parse_json
from mover.media.round_record import LogGap, RoundRecord

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class TenantShare:
    """A tenant's part of a round. Times in us."""

    start_us: int
    checkpoint_us: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    lost: str = ""  # why the round ended, when it was this tenant's log


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """See the module. Times in us."""

    round_id: int
    holder: str  # host/pid/start of the archiver, "" when none runs
    epoch: int
    heartbeat_us: int
    caught_up_us: int = 0  # all log that was confirmed by this moment is durable; what lag is measured from
    interrupted_us: int = 0
    tenants: Mapping[int, TenantShare] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The whole file."""
        value = dataclasses.asdict(self)
        value["tenants"] = {str(tenant): share for tenant, share in value["tenants"].items()}
        payload = canonical_json(value).encode()
        header = CommonHeader(DataType.CLUSTER_RECORD, len(payload), len(payload), ob_crc64(payload))
        return header.pack() + payload

    @classmethod
    def decode(cls, data: Buffer) -> ClusterRecord:
        """Raises FormatError unless these are exactly the bytes :meth:`encode` makes."""
        header = parse_header(data, data_type=DataType.CLUSTER_RECORD)
        payload = bytes(data[HEADER_SIZE:])
        header.check_payload(payload)
        try:
            value = parse_json(payload.decode(), "cluster record")
            shares = {int(tenant): TenantShare(**share) for tenant, share in value.pop("tenants").items()}
            record = cls(**value, tenants=shares)
            for item in ({**value}, *map(dataclasses.asdict, shares.values())):
                for name, found in item.items():
                    if type(found) is not (str if name in {"holder", "lost"} else int):
                        raise TypeError(name)
        except (UnicodeDecodeError, AttributeError, TypeError, ValueError, KeyError) as exc:
            raise FormatError(f"bad cluster record: {exc}", offset=HEADER_SIZE) from None
        if record.encode() != bytes(data):
            raise FormatError("bad cluster record: not in canonical form", offset=HEADER_SIZE)
        return record

    def of_tenant(self, tenant_id: int) -> RoundRecord | None:
        """The round as one tenant has it, in the form that a store of one PG keeps; tenant 1 is the least of all."""
        share = self.tenants.get(tenant_id)
        if tenant_id == 1:
            every = self.tenants.values()
            share = TenantShare(
                max((found.start_us for found in every), default=0),
                min((found.checkpoint_us for found in every), default=0),
                sum(found.input_bytes for found in every),
                sum(found.output_bytes for found in every),
                next((found.lost for found in every if found.lost), ""),
            )
        if share is None:
            return None
        gap = None
        if share.lost:
            gap = LogGap(0, 0, share.checkpoint_us * 1000, self.interrupted_us, share.lost)
        return RoundRecord(
            round_id=self.round_id,
            holder=self.holder,
            epoch=self.epoch,
            heartbeat_us=self.heartbeat_us,
            start_lsn=0,
            start_scn=share.start_us * 1000,
            checkpoint_lsn=0,
            checkpoint_scn=share.checkpoint_us * 1000,
            caught_up_us=self.caught_up_us,
            input_bytes=share.input_bytes,
            output_bytes=share.output_bytes,
            gap=gap,
        )
