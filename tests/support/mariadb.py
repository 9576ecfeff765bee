"""A real MariaDB on loopback, for tests: what speaks the MySQL protocol and is neither SQLite nor OceanBase.

``with mariadb_server(directory) as mariadb:`` gives ``mariadb.port``, ``mariadb.user``, ``mariadb.password`` and
``mariadb.catalog_url(database)``; ``mariadb.create_database(name)`` makes one. The server is killed at the end, and by
the kernel when this process dies first. Its data is in memory where /dev/shm is: nobody needs it after a crash.
"""

import asyncio
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from child import free_ports, start_child

SERVER = shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
START_SECONDS = 90


class MariaDB:
    user = "mover"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.password = secrets.token_hex(12) + "/@:%"  # a password that needs care in a URL
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def catalog_url(self, database: str) -> str:
        from sqlalchemy.engine import URL

        url = URL.create("mysql+asyncmy", self.user, self.password, "127.0.0.1", self.port, database)
        return url.render_as_string(hide_password=False)

    def execute(self, *statements: str, database: str | None = None) -> list[Any]:
        """Run statements as mover's user; the rows of the last."""
        with ThreadPoolExecutor(1) as aside:  # callers may have an event loop running
            return aside.submit(asyncio.run, self.execute_async(*statements, database=database)).result()

    async def execute_async(self, *statements: str, database: str | None = None) -> list[Any]:
        import asyncmy

        connection = await asyncmy.connect(
            host="127.0.0.1", port=self.port, user=self.user, password=self.password, db=database, autocommit=True
        )
        try:
            async with connection.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
                return list(await cursor.fetchall())
        finally:
            connection.close()

    def create_database(self, name: str) -> str:
        """A new, empty database; its catalog URL."""
        self.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        return self.catalog_url(name)

    def pause(self) -> None:
        """The server answers nothing until :meth:`go_on`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def start(self) -> None:
        """Start, or start again on the same port with the data that is there."""
        assert SERVER is not None
        self.port = self.port or free_ports(1)[0]
        data = self.directory / "data"
        if not data.exists():
            install = [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
            ]
            subprocess.run(install, check=True, capture_output=True, timeout=START_SECONDS)
        grants = self.directory / "grants.sql"
        grants.write_text(
            f"CREATE OR REPLACE USER '{self.user}'@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO '{self.user}'@'%';\n"
        )
        command = [
            SERVER,
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            f"--socket={self.directory / 's'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=32M",
            "--innodb-flush-log-at-trx-commit=2",  # power cuts are not what these tests are about
            "--skip-log-bin",
            f"--init-file={grants}",
        ]
        with (self.directory / "log").open("ab") as log:
            self.process = start_child(command, log=log, cwd=self.directory)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except Exception:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(
                        f"MariaDB does not start: {(self.directory / 'log').read_text()[-2000:]}"
                    ) from None
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def mariadb_server(directory: Path | None = None) -> Iterator[MariaDB]:
    """A MariaDB for the length of the block."""
    memory = Path("/dev/shm")
    own = Path(tempfile.mkdtemp(prefix="mover-mariadb-", dir=memory if memory.is_dir() else None))
    server = MariaDB(directory or own)
    try:
        server.directory.mkdir(parents=True, exist_ok=True)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(own, ignore_errors=True)
