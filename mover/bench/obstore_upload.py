"""A peer: ``python obstore_upload.py REPORT SOURCE PATH PART CONCURRENCY SIGNED``, by a Python that has obstore.

Uploads one file in parts without looking at it. Endpoint, bucket, prefix and keys come from the environment. Imports
nothing of mover: the interpreter may be another one.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path


def main(report: str, source: str, path: str, part: str, concurrency: str, signed: str) -> None:
    import obstore  # type: ignore[import-not-found,unused-ignore]
    from obstore.store import S3Store  # type: ignore[import-not-found,unused-ignore]

    endpoint = os.environ.get("MOVER_BENCH_ENDPOINT")
    options = {"endpoint": endpoint} if endpoint else {}
    store = S3Store(
        os.environ["MOVER_BENCH_BUCKET"],
        unsigned_payload=signed != "signed",
        virtual_hosted_style_request=os.environ.get("MOVER_BENCH_ADDRESSING") == "virtual",
        client_options={"allow_http": True},
        **options,
    )
    used = resource.getrusage(resource.RUSAGE_SELF)
    facts = {"ready_at": time.monotonic(), "ready_cpu_seconds": used.ru_utime + used.ru_stime}
    obstore.put(store, path, Path(source), chunk_size=int(part), max_concurrency=int(concurrency))
    size = Path(source).stat().st_size
    Path(report).write_text(json.dumps({"bytes_in": size, "bytes_out": size, **facts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
