"""A real SeaweedFS S3 server on loopback, for tests.

``with weed_server(directory) as weed:`` gives ``weed.endpoint``, ``weed.access_id``, ``weed.access_key``,
``weed.url("prefix")`` (a destination URL without keys), ``weed.environment`` (the keys, for a process or monkeypatch)
and ``weed.client()`` (a plain botocore client to look at the server with). The bucket ``weed.bucket`` exists. The
server is killed at the end, and by the kernel when this process dies first.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from child import free_ports, start_child

START_SECONDS = 90
_IDENTITIES = """{{"identities": [{{"name": "mover",
 "credentials": [{{"accessKey": "{access_id}", "secretKey": "{access_key}"}}],
 "actions": ["Admin", "Read", "Write", "List", "Tagging"]}}]}}"""


class Weed:
    name = "SeaweedFS"
    bucket = "mover"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.access_id = "TESTACCESSID"
        self.access_key = "secret/" + secrets.token_hex(16) + "+=&"  # a key that needs care in a URL
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_id,
            "AWS_SECRET_ACCESS_KEY": self.access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def url(self, prefix: str = "", *, keys: bool = False, bucket: str | None = None, **options: Any) -> str:
        query = {"endpoint": self.endpoint, **options}
        if keys:
            query |= {"access_id": self.access_id, "access_key": self.access_key}
        text = "&".join(f"{key}={quote(str(value), safe=':/')}" for key, value in query.items())
        return f"s3://{bucket or self.bucket}/{quote(prefix)}?{text}"

    def client(self) -> Any:
        import botocore.config
        import botocore.session

        config = botocore.config.Config(
            s3={"addressing_style": "path"},
            connect_timeout=2,
            read_timeout=20,
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
        )
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_id,
            aws_secret_access_key=self.access_key,
            config=config,
        )

    def start(self) -> None:
        data = self.directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        identities = self.directory / "identities.json"
        identities.write_text(_IDENTITIES.format(access_id=self.access_id, access_key=self.access_key))
        identities.chmod(0o600)
        names = ["s3", "master", "volume", "filer"]
        numbers = iter(free_ports(2 * len(names)))
        ports = {option: next(numbers) for name in names for option in (f"{name}.port", f"{name}.port.grpc")}
        self.port = ports["s3.port"]
        command = [
            str(Path(sys.executable).with_name("weed")),
            f"-logdir={self.directory}",
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={data}",
            "-s3",
            f"-s3.config={identities}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=40",
            *(f"-{option}={number}" for option, number in ports.items()),
        ]
        self.run(command, WEED_S3_SSE_KEK=secrets.token_hex(32))  # what its own encryption wraps keys with

    def run(self, command: list[str], **environment: str) -> None:
        """Start the server, and wait until it takes a write."""
        with (self.directory / "log").open("wb") as log:
            self.process = start_child(command, log=log, cwd=self.directory, **environment)
        self._wait()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _wait(self) -> None:
        """Until a real write succeeds: the gateway listens long before there is a volume to write to."""
        import botocore.exceptions

        assert self.process is not None
        client = self.client()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client.create_bucket(Bucket=self.bucket)
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
                if "BucketAlready" not in str(error):
                    self._give_up_after(deadline, error)
                    continue
            try:
                client.put_object(Bucket=self.bucket, Key="ready", Body=b"ready")
                client.delete_object(Bucket=self.bucket, Key="ready")
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
                self._give_up_after(deadline, error)
                continue
            client.close()
            return

    def _give_up_after(self, deadline: float, error: Exception) -> None:
        assert self.process is not None
        if self.process.poll() is not None or time.monotonic() > deadline:
            tail = (self.directory / "log").read_bytes()[-3000:].decode(errors="replace")
            raise RuntimeError(f"{self.name} did not start ({error}); its log ends with:\n{tail}")
        time.sleep(0.1)


@contextmanager
def weed_server(directory: Path) -> Iterator[Weed]:
    """A server that is ready, with an empty bucket; killed at the end, whatever happens."""
    weed = Weed(directory)
    try:
        weed.start()
        yield weed
    finally:
        weed.stop()
