"""OceanBase 3.1 observers: their catalog over SQL, block_file, clog and ilog, read beside the running servers.

Nothing here was checked against a live 3.1 server: layouts and names are those of the open source of 3.1. What could
not be read there ends in an error that says so, or is marked as unknown.
"""
