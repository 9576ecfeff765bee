"""A synthetic OceanBase 3.1 cluster on disk: what observers would have there, from a seed, at any size.

No server is needed and none is imitated while running: the files are complete and correct in themselves, and a ledger
beside them says what a backup of them must hold. The writers here know nothing of the readers in ``mover.media`` and
``mover.store.observer``; the two sides share the notes on the format and the checksums of ``mover.kernel``.

``create(directory, ...)`` makes generation 0, ``grow(directory)`` the next one: log is appended and some sstables are
compacted (new blocks, freed blocks). The same seed and the same sequence of calls give the same bytes.

::

    DIR/
      state.json                    what grow needs; private to this package
      catalog.json                  the virtual tables: {"generation": g, "now": µs, "tables": {name: {"columns":
                                    [[name, SQL type], ...], "key": [name, ...], "rows": [[value, ...], ...]}}}
                                    names and columns as in OceanBase (database "oceanbase", sys tenant)
      ledger.json                   the truth that a restore is compared with, see below
      observer_<n>/                 n = 1, 2, ...; server 10.0.0.<n>, RPC port 2882, SQL port 2881, zone_<n>
        store/sstable/block_file    super blocks at 0 and 2 MiB, then macro blocks; sparse
        store/clog/<id>             64 MiB each (sparse behind INFO block and before the trailer); the newest is live
                                    and was made of a recycled file: stale blocks and a stale trailer behind the tail
        store/ilog/<id>             file format V2; the newest id is replaced by grow
        store/slog/<id>

    ledger.json
      {"generation": g, "seed": s, "now": µs, "freezes": [[frozen_version, frozen_timestamp], ...],
       "servers": [{"server": n, "ip": "10.0.0.<n>", "port": 2882, "sql_port": 2881, "zone": z,
                    "directory": "observer_<n>"}, ...],
       "tenants": [{"tenant_id": t, "name": "..."}],
       "pgs": [{"tenant_id", "table_id", "partition_id", "partition_cnt", "leader": n,
                "start_log_id", "start_accum_checksum",    # the first log that every replica still has; checksum before
                "confirmed_log_id",                        # the last confirmed log of the PG
                "logs": [[log_id, submit_timestamp, accum_checksum, sha256 of the entry's bytes, bytes, log_type], ...],
                                                            # contiguous, start_log_id .. confirmed_log_id; the entry is
                                                            # header and body as a clog has them, decompressed
                "replicas": [{"server": n, "role": 1 leader | 2 follower, "first_log_id", "last_log_id",
                              "max_confirmed_log_id", "ilog_log_id",   # what SQL says, and where its ilog ends
                              "sstables": [{"table_type": 1 major | 7 mini minor | 4 minor, "table_id", "index_id",
                                            "partition_id", "version", "base_version", "multi_version_start",
                                            "snapshot_version",
                                            "blocks": [[block_index, data_version, data_seq, occupy_size, row_count,
                                                        data_checksum, "data_block" | "lob_block",
                                                        sha256 of the occupy_size bytes], ...]}, ...]}, ...]}, ...]}

"sys_pgs" has the same of the sys tenant's PGs, if there are any: their log is in the clogs and is not archived.
Checksums are signed 64-bit integers as SQL shows them. Blocks differ between replicas (index, data_seq of minors);
majors of one version hold the same rows everywhere.
"""
