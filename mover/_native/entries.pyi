from mover.kernel.entries import EntryRun

Buffer = bytes | bytearray | memoryview

def walk_entries(payload: Buffer, table_id: int, next_log_id: int, accum: int) -> EntryRun | None: ...
