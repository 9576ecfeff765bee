"""What can be wrong with log bytes, in words. The numbers are shared with ``_native/palf.pyx``."""

from __future__ import annotations

from enum import IntEnum


class Fault(IntEnum):
    """A check that failed. ``describe`` makes the sentence."""

    GROUP_SHORT = 1
    GROUP_MAGIC = 2
    GROUP_CHECK = 3
    GROUP_CROSSES = 4
    GROUP_LOG_ID = 5
    GROUP_SCN_BACK = 6
    GROUP_TORN = 7
    ENTRY_SHORT = 8
    ENTRY_MAGIC = 9
    ENTRY_CHECK = 10
    ENTRY_FIT = 11
    ENTRY_DATA = 12
    GROUP_SCN_LAST = 13
    GROUP_ACCUM = 14
    FRAME_SHORT = 20
    FRAME_MAGIC = 21
    FRAME_CHECK = 22
    FRAME_TYPE = 23
    FRAME_FIELDS = 24
    FRAME_FIT = 25
    FRAME_DATA = 26
    FRAME_BODY = 27
    FRAME_NO_GROUP = 28
    FRAME_KEY = 29


_WORDS = {
    Fault.GROUP_SHORT: "{a} bytes left for a group header",
    Fault.GROUP_MAGIC: "group magic {a:#06x}, version {b}",
    Fault.GROUP_CHECK: "group header check {a:#06x} does not match {b:#06x}",
    Fault.GROUP_CROSSES: "group of {a} bytes is empty or crosses the end of its log file",
    Fault.GROUP_LOG_ID: "log id {a} where {b} must follow",
    Fault.GROUP_SCN_BACK: "max scn {a} is below {b} of the group before",
    Fault.GROUP_TORN: "group of {a} bytes, the buffer has {b}",
    Fault.ENTRY_SHORT: "{a} bytes left for an entry header",
    Fault.ENTRY_MAGIC: "entry magic {a:#06x}, version {b}",
    Fault.ENTRY_CHECK: "entry header check {a:#06x} does not match {b:#06x}",
    Fault.ENTRY_FIT: "entry of {a} bytes does not fit the {b} left of its group",
    Fault.ENTRY_DATA: "entry data checksum {a:#010x} does not match {b:#010x}",
    Fault.GROUP_SCN_LAST: "last entry's scn {a} is not the group's max scn {b}",
    Fault.GROUP_ACCUM: "accumulated checksum {a:#010x}, the chain says {b:#010x}",
    Fault.FRAME_SHORT: "{a} bytes left for its header",
    Fault.FRAME_MAGIC: "magic {a:#06x}, version {b}",
    Fault.FRAME_CHECK: "header checksum {a:#010x} does not match {b:#010x}",
    Fault.FRAME_TYPE: "log type {a} is not {b}",
    Fault.FRAME_FIELDS: "ip version {a} or time or epoch {b:#x} out of range",
    Fault.FRAME_FIT: "body of {a} bytes, the payload has {b}",
    Fault.FRAME_DATA: "data checksum {a:#010x} does not match {b:#010x}",
    Fault.FRAME_BODY: "body version and flags {a:#010x}, reserved {b}",
    Fault.FRAME_NO_GROUP: "body of {a} bytes is too short for a log group",
    Fault.FRAME_KEY: "belongs to another PG than the first entry",
}


def describe(fault: int, a: int, b: int) -> str:
    """The sentence for ``fault``; ``a`` is what was found and ``b`` what it was compared with, both unsigned."""
    return _WORDS[Fault(fault)].format(a=a, b=b)
