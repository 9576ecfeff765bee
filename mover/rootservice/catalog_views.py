"""OceanBase's views of backups and rounds, as SQL views in the catalog: its names, its columns, its order.

For whoever asks with SQL; `mover show` asks the same tables. Columns as in OceanBase 3.1 (ELAPSED_SECONDES is its
spelling). A backup whose coordinator died says RUNNING until the next one ends it: SQL cannot see a process.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, literal, not_, select
from sqlalchemy.orm import aliased
from sqlalchemy.sql.expression import null

from mover.rootservice.catalog_clock import time_of_us
from mover.rootservice.catalog_tables import archive_round, backup_task

Number = ColumnElement[Any]

_ENDED = backup_task.c.status == "FINISH"
_SECONDS = (backup_task.c.end_time - backup_task.c.start_time) / 1000000.0
_STATUS = case(
    (and_(_ENDED, backup_task.c.is_mark_deleted != 0), "DELETING"),
    (and_(_ENDED, backup_task.c.result != 0), "FAILED"),
    (_ENDED, "COMPLETED"),
    else_="RUNNING",
)
_COUNTS = (
    backup_task.c.partition_count.label("PARTITION_COUNT"),
    backup_task.c.macro_block_count.label("MACRO_BLOCK_COUNT"),
    backup_task.c.finish_partition_count.label("FINISH_PARTITION_COUNT"),
    backup_task.c.finish_macro_block_count.label("FINISH_MACRO_BLOCK_COUNT"),
)


def _ratio(output: Number, incoming: Number) -> Number:
    """OceanBase's compression ratio, output by input with two digits; NULL for no input."""
    return func.round(output * 1.0 / func.nullif(incoming, 0), 2)


def _per_second(amount: Number) -> Number:
    return amount * 1.0 / func.nullif(_SECONDS, 0)


def _shown(amount: Number, suffix: str = "") -> Number:
    """A number of bytes for people: the largest unit from MB to PB it fills, two digits."""

    def text(power: int, unit: str) -> Number:
        return func.round(amount / float(1024**power), 2).concat(unit + suffix)

    units = ((5, "PB"), (4, "TB"), (3, "GB"))
    return case(*((amount >= 1024**power, text(power, unit)) for power, unit in units), else_=text(2, "MB"))


def _took() -> Number:
    return func.round(_SECONDS, 2).concat("s")


def _progress() -> Select[Any]:
    return select(
        literal(1).label("INCARNATION"),
        backup_task.c.backup_set_id.label("BS_KEY"),
        backup_task.c.backup_type.label("BACKUP_TYPE"),
        backup_task.c.tenant_id.label("TENANT_ID"),
        *_COUNTS,
        backup_task.c.input_bytes.label("INPUT_BYTES"),
        backup_task.c.output_bytes.label("OUTPUT_BYTES"),
        time_of_us(backup_task.c.start_time).label("START_TIME"),
        time_of_us(backup_task.c.end_time).label("COMPLETION_TIME"),
        _STATUS.label("STATUS"),
    ).where(not_(_ENDED))


def _job_details() -> Select[Any]:
    incoming, output = backup_task.c.input_bytes, backup_task.c.output_bytes
    return select(
        literal(1).label("INCARNATION"),
        backup_task.c.tenant_id.label("TENANT_ID"),
        backup_task.c.backup_set_id.label("BS_KEY"),
        backup_task.c.backup_type.label("BACKUP_TYPE"),
        literal("NONE").label("ENCRYPTION_MODE"),
        time_of_us(backup_task.c.start_time).label("START_TIME"),
        time_of_us(backup_task.c.end_time).label("END_TIME"),
        incoming.label("INPUT_BYTES"),
        output.label("OUTPUT_BYTES"),
        null().label("OUTPUT_DEVICE_TYPE"),
        case((_ENDED, _SECONDS)).label("ELAPSED_SECONDES"),
        _ratio(output, incoming).label("COMPRESSION_RATIO"),
        case((_ENDED, _per_second(incoming))).label("INPUT_BYTES_PER_SEC"),
        case((_ENDED, _per_second(output))).label("OUTPUT_BYTES_PER_SEC"),
        _STATUS.label("STATUS"),
        _shown(incoming).label("INPUT_BYTES_DISPLAY"),
        _shown(output).label("OUTPUT_BYTES_DISPLAY"),
        case((_ENDED, _shown(_per_second(incoming), "/S"))).label("INPUT_BYTES_PER_SEC_DISPLAY"),
        case((_ENDED, _shown(_per_second(output), "/S"))).label("OUTPUT_BYTES_PER_SEC_DISPLAY"),
        case((_ENDED, _took())).label("TIME_TAKEN_DISPLAY"),
    )


def _set_details() -> Select[Any]:
    incoming, output = backup_task.c.input_bytes, backup_task.c.output_bytes
    return select(
        literal(1).label("INCARNATION"),
        backup_task.c.tenant_id.label("TENANT_ID"),
        backup_task.c.backup_set_id.label("BS_KEY"),
        backup_task.c.backup_type.label("BACKUP_TYPE"),
        literal("NONE").label("ENCRYPTION_MODE"),
        time_of_us(backup_task.c.start_time).label("START_TIME"),
        time_of_us(backup_task.c.end_time).label("COMPLETION_TIME"),
        _SECONDS.label("ELAPSED_SECONDES"),
        literal("NO").label("KEEP"),
        literal("").label("KEEP_UNTIL"),
        null().label("DEVICE_TYPE"),
        case((output < incoming, "YES"), else_="NO").label("COMPRESSED"),
        output.label("OUTPUT_BYTES"),
        _per_second(output).label("OUTPUT_RATE_BYTES"),
        _ratio(output, incoming).label("COMPRESSION_RATIO"),
        _shown(output).label("OUTPUT_BYTES_DISPLAY"),
        _shown(_per_second(output), "/S").label("OUTPUT_RATE_BYTES_DISPLAY"),
        _took().label("TIME_TAKEN_DISPLAY"),
        _STATUS.label("STATUS"),
    ).where(_ENDED)


def _rounds(*, current: bool) -> Select[Any]:
    incoming, output = archive_round.c.input_bytes, archive_round.c.output_bytes
    query = select(
        literal(1).label("INCARNATION"),
        archive_round.c.round_id.label("LOG_ARCHIVE_ROUND"),
        archive_round.c.tenant_id.label("TENANT_ID"),
        archive_round.c.status.label("STATUS"),
        time_of_us(archive_round.c.start_us).label("MIN_FIRST_TIME"),
        time_of_us(archive_round.c.checkpoint_scn / 1000).label("MAX_NEXT_TIME"),
        incoming.label("INPUT_BYTES"),
        output.label("OUTPUT_BYTES"),
        _ratio(output, incoming).label("COMPRESSION_RATIO"),
        _shown(incoming).label("INPUT_BYTES_DISPLAY"),
        _shown(output).label("OUTPUT_BYTES_DISPLAY"),
    )
    if not current:
        return query
    later = aliased(archive_round)
    newer = and_(later.c.tenant_id == archive_round.c.tenant_id, later.c.round_id > archive_round.c.round_id)
    return query.where(not_(exists().where(newer)))


VIEWS: dict[str, Select[Any]] = {
    "CDB_OB_BACKUP_PROGRESS": _progress(),
    "CDB_OB_BACKUP_JOB_DETAILS": _job_details(),
    "CDB_OB_BACKUP_SET_DETAILS": _set_details(),
    "CDB_OB_BACKUP_ARCHIVELOG": _rounds(current=True),
    "CDB_OB_BACKUP_ARCHIVELOG_SUMMARY": _rounds(current=False),
}


def create_view(name: str, dialect: Any) -> str:
    """The statement that creates a view, in the words of ``dialect``; for ``exec_driver_sql``."""
    body = VIEWS[name].compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    return f"CREATE VIEW {name} AS {body}"
