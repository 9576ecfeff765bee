"""``tenant_info``, ``tenant_name_info``, ``tenant_locality_info`` and ``tenant_diagnose_info``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mover.errors import FormatError, StateError
from mover.media.header import HEADER_SIZE, DataType
from mover.media.info_file import decode_info, encode_info
from mover.media.serial import BOOL, FIXED_STRING, I32, I64, TEXT, U64, Buffer, Reader, Unis, array


@dataclass(frozen=True, slots=True)
class TenantInfo:
    """ObExternTenantInfo: a tenant that was ever backed up; times in microseconds."""

    tenant_id: int
    create_timestamp: int  # OceanBase leaves 0
    delete_timestamp: int
    compat_mode: int  # 0 MySQL, 1 Oracle
    tenant_name: str
    backup_snapshot_version: int


_TENANT: Unis[TenantInfo] = Unis(
    TenantInfo,
    [
        ("tenant_id", U64),
        ("create_timestamp", I64),
        ("delete_timestamp", I64),
        ("compat_mode", I32),
        ("tenant_name", FIXED_STRING),
        ("backup_snapshot_version", I64),
    ],
)


@dataclass(frozen=True, slots=True)
class _Tenants:
    items: tuple[TenantInfo, ...]


_TENANTS: Unis[_Tenants] = Unis(_Tenants, [("items", array(_TENANT))])


def encode_tenant_infos(infos: Sequence[TenantInfo]) -> bytes:
    """The whole ``tenant_info``."""
    return encode_info(DataType.TENANT_INFO, _TENANTS.encode(_Tenants(tuple(infos))))


def decode_tenant_infos(data: Buffer, *, strict: bool = True) -> tuple[TenantInfo, ...]:
    """The elements of ``tenant_info``. Raises FormatError."""
    body = decode_info(data, DataType.TENANT_INFO, strict=strict)
    return _TENANTS.decode(body, base_offset=HEADER_SIZE, strict=strict).items


def upsert_tenant(infos: Sequence[TenantInfo], info: TenantInfo) -> tuple[TenantInfo, ...]:
    """Add a tenant, or replace its element. Idempotent."""
    if any(i.tenant_id == info.tenant_id for i in infos):
        return tuple(info if i.tenant_id == info.tenant_id else i for i in infos)
    return (*infos, info)


@dataclass(frozen=True, slots=True)
class TenantNameId:
    """From ``timestamp`` (us) on, the name belonged to this tenant."""

    tenant_id: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class TenantName:
    """A tenant name and the tenants that ever had it, oldest first."""

    tenant_name: str
    is_complete: bool
    id_list: tuple[TenantNameId, ...]


@dataclass(frozen=True, slots=True)
class TenantNames:
    """``tenant_name_info``: every name, sorted."""

    schema_version: int
    names: tuple[TenantName, ...]

    def resolve(self, name: str, at_us: int) -> int | None:
        """The id of tenant ``name`` at a moment, or None."""
        for entry in self.names:
            if entry.tenant_name == name:
                known = [item for item in entry.id_list if item.timestamp <= at_us]
                return known[-1].tenant_id if known else None
        return None

    def add(self, name: str, tenant_id: int, at_us: int, schema_version: int) -> TenantNames:
        """The names after ``name`` was seen to belong to ``tenant_id``. Idempotent while it stays so.

        Raises StateError when the schema version would go back.
        """
        if schema_version < self.schema_version:
            raise StateError(f"tenant name info has schema version {self.schema_version}, not {schema_version}")
        found = {entry.tenant_name: entry for entry in self.names}
        entry = found.get(name, TenantName(name, True, ()))
        if not entry.id_list or entry.id_list[-1].tenant_id != tenant_id:
            items = sorted((*entry.id_list, TenantNameId(tenant_id, at_us)), key=lambda item: item.timestamp)
            entry = replace(entry, id_list=tuple(items))
        found[name] = entry
        return TenantNames(schema_version, tuple(found[key] for key in sorted(found, key=str.encode)))


@dataclass(frozen=True, slots=True)
class _NamesMeta:
    schema_version: int
    tenant_count: int


_NAMES_META: Unis[_NamesMeta] = Unis(_NamesMeta, [("schema_version", I64), ("tenant_count", I64)])
_NAME_ID: Unis[TenantNameId] = Unis(TenantNameId, [("tenant_id", U64), ("timestamp", I64)])
_NAME: Unis[TenantName] = Unis(TenantName, [("tenant_name", TEXT), ("is_complete", BOOL), ("id_list", array(_NAME_ID))])


def encode_tenant_names(names: TenantNames) -> bytes:
    """The whole ``tenant_name_info``: the meta, then the names, without a wrapper around them."""
    body = _NAMES_META.encode(_NamesMeta(names.schema_version, len(names.names)))
    return encode_info(DataType.TENANT_NAME_INFO, body + b"".join(map(_NAME.encode, names.names)))


def decode_tenant_names(data: Buffer, *, strict: bool = True) -> TenantNames:
    """Raises FormatError; strict also when names or their ids are out of order."""
    reader = Reader(decode_info(data, DataType.TENANT_NAME_INFO, strict=strict), base_offset=HEADER_SIZE, strict=strict)
    meta = _NAMES_META.get(reader, "tenant name meta")
    if not 0 <= meta.tenant_count <= reader.remaining:
        raise reader.fail(f"{meta.tenant_count} tenant names, {reader.remaining} bytes are left")
    names = tuple(_NAME.get(reader, "tenant name") for _ in range(meta.tenant_count))
    reader.finish("tenant_name_info")
    if strict:
        keys = [name.tenant_name.encode() for name in names]
        if any(a >= b for a, b in itertools.pairwise(keys)):
            raise FormatError("tenant names are not sorted", offset=HEADER_SIZE)
        for name in names:
            if list(name.id_list) != sorted(name.id_list, key=lambda item: item.timestamp):
                raise FormatError(f"the ids of tenant name {name.tenant_name!r} are not sorted", offset=HEADER_SIZE)
    return TenantNames(meta.schema_version, names)


@dataclass(frozen=True, slots=True)
class TenantLocality:
    """ObExternTenantLocalityInfo, one per backup."""

    tenant_id: int
    backup_set_id: int
    backup_snapshot_version: int
    compat_mode: int
    tenant_name: str
    locality: str
    primary_zone: str


_LOCALITY: Unis[TenantLocality] = Unis(
    TenantLocality,
    [
        ("tenant_id", U64),
        ("backup_set_id", I64),
        ("backup_snapshot_version", I64),
        ("compat_mode", I32),
        ("tenant_name", FIXED_STRING),
        ("locality", FIXED_STRING),
        ("primary_zone", FIXED_STRING),
    ],
)


def encode_tenant_locality(info: TenantLocality) -> bytes:
    """The whole ``tenant_locality_info``."""
    return encode_info(DataType.TENANT_LOCALITY_INFO, _LOCALITY.encode(info))


def decode_tenant_locality(data: Buffer, *, strict: bool = True) -> TenantLocality:
    """Raises FormatError."""
    body = decode_info(data, DataType.TENANT_LOCALITY_INFO, strict=strict)
    return _LOCALITY.decode(body, base_offset=HEADER_SIZE, strict=strict)


def encode_tenant_diagnose(tenant_id: int, lines: Sequence[str]) -> bytes:
    """The whole ``tenant_diagnose_info``: text for people, a blank line, the tenant, one line per part.

    Raises ValueError for a line break inside a line.
    """
    if any("\n" in line or "\r" in line for line in lines):
        raise ValueError("a line of the diagnose info holds a line break")
    text = "\n".join(("", f"tenant_id: {tenant_id}", *lines)) + "\n"
    return encode_info(DataType.TENANT_DIAGNOSE_INFO, text.encode())


def decode_tenant_diagnose(data: Buffer, *, strict: bool = True) -> tuple[str, ...]:
    """The lines behind the blank one. Raises FormatError."""
    body = decode_info(data, DataType.TENANT_DIAGNOSE_INFO, strict=strict)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise FormatError("tenant_diagnose_info is not UTF-8", offset=HEADER_SIZE) from error
    if strict and not (text.startswith("\n") and text.endswith("\n")):
        raise FormatError("tenant_diagnose_info does not begin and end with a line break", offset=HEADER_SIZE)
    return tuple(text.strip("\n").split("\n"))
