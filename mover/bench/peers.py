"""Programs that a user could take instead, where they are installed, as pipes of processes.

Looked for in the directory that ``--peers`` names (a virtual environment, as ``make bench-peers`` makes one) and then
on the PATH. What is not there is not compared with, and the machine's facts say what was.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mover.bench import obstore_upload
from mover.bench.measure import Stage
from mover.target.url import ObjectDestination

_VERSIONS = {
    "s5cmd": ("version",),
    "rclone": ("version",),
    "restic": ("version",),
    **dict.fromkeys(("borg", "zstd", "xxhsum", "dd", "cp"), ("--version",)),
}
_SHELL = "/bin/sh"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that goes to an object: the same for every peer."""

    source: Path
    destination: ObjectDestination
    key: str
    part_size: int
    concurrency: int
    report: Path

    @property
    def environment(self) -> dict[str, str]:
        destination = self.destination
        return {
            "AWS_REGION": destination.region or os.environ.get("AWS_REGION", "us-east-1"),
            "MOVER_BENCH_BUCKET": destination.bucket,
            "MOVER_BENCH_ADDRESSING": destination.addressing,
            **({"MOVER_BENCH_ENDPOINT": destination.endpoint} if destination.endpoint else {}),
        }

    @property
    def secrets(self) -> dict[str, str]:
        """Keys of the URL; without them the peers take those of the environment, as mover does."""
        named = {
            "AWS_ACCESS_KEY_ID": self.destination.access_id,
            "AWS_SECRET_ACCESS_KEY": self.destination.access_key,
            "AWS_SESSION_TOKEN": self.destination.session_token,
        }
        return {name: value for name, value in named.items() if value}


class Peers:
    """What is installed. ``directory`` is a virtual environment or None."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._found: dict[str, str | None] = {}
        self._obstore: str | None = None

    def program(self, name: str) -> str | None:
        """Where a program is, or None."""
        if name not in self._found:
            places = [str(self._directory / "bin")] if self._directory else []
            self._found[name] = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", os.defpath)]))
        return self._found[name]

    def obstore(self) -> str | None:
        """A Python that has obstore, or None."""
        if self._obstore is None:
            python = self.program("python3") or ""
            probe = [python, "-c", "import obstore; print('obstore', obstore.__version__)"]
            found = bool(python) and subprocess.run(probe, capture_output=True, check=False).returncode == 0
            self._obstore = python if found else ""
        return self._obstore or None

    def versions(self) -> Mapping[str, Sequence[str]]:
        """For everything that was asked for and found: the command that says its version."""
        asked = {name: [path, *_VERSIONS[name]] for name, path in self._found.items() if path and name in _VERSIONS}
        if self._obstore:
            asked["obstore"] = [self._obstore, "-c", "import obstore; print(obstore.__version__)"]
        return asked

    def s5cmd(self, upload: Upload) -> list[Stage] | None:
        """``s5cmd cp``."""
        program = self.program("s5cmd")
        return [self._s5cmd(program, upload, "cp", str(upload.source))] if program else None

    def zstd_s5cmd(self, upload: Upload, level: int) -> list[Stage] | None:
        """``zstd -T2 | s5cmd pipe``."""
        zstd, s5cmd = self.program("zstd"), self.program("s5cmd")
        if not zstd or not s5cmd:
            return None
        return [_zstd(zstd, level, upload.source), self._s5cmd(s5cmd, upload, "pipe")]

    def obstore_put(self, upload: Upload, *, signed: bool = False) -> list[Stage] | None:
        """obstore, by default without a digest of the bodies: the least that can be done."""
        python = self.obstore()
        if python is None:
            return None
        key = "/".join(part for part in (upload.destination.prefix, upload.key) if part)
        script = str(Path(obstore_upload.__file__))
        numbers = [str(upload.part_size), str(upload.concurrency)]
        argv = [
            python,
            script,
            str(upload.report),
            str(upload.source),
            key,
            *numbers,
            "signed" if signed else "unsigned",
        ]
        return [Stage(argv, upload.environment, upload.secrets)]

    def dd(self, source: Path, to: Path, *, direct: bool) -> list[Stage] | None:
        """``dd``, durable at its end; ``direct`` past the page cache."""
        program = self.program("dd")
        flags = ["oflag=direct"] if direct else []
        if program is None:
            return None
        return [Stage([program, f"if={source}", f"of={to}", "bs=4M", "conv=fsync", *flags])]

    def cp(self, source: Path, to: Path) -> list[Stage] | None:
        """``cp`` and an fsync of the copy."""
        if not self.program("cp") or not self.program("sync"):
            return None
        return [Stage([_SHELL, "-c", 'cp -- "$1" "$2" && sync -- "$2"', "cp", str(source), str(to)])]

    def dd_each(self, sources: Sequence[Path], to: Path) -> list[Stage] | None:
        """``dd`` of each file into a directory, past the page cache on both sides, durable."""
        program = self.program("dd")
        if program is None:
            return None
        line = (
            'dd=$1 to=$2; shift 2; mkdir -p "$to" || exit; for file; do "$dd" "if=$file" "of=$to/${file##*/}" bs=4M'
            " iflag=direct oflag=direct conv=fsync || exit; done"
        )
        return [Stage([_SHELL, "-c", line, "dd-each", program, str(to), *map(str, sources)])]

    def xxhsum(self, sources: Sequence[Path]) -> list[Stage] | None:
        """XXH3-128 of every file, one after the other."""
        program = self.program("xxhsum")
        return [Stage([program, "-H2", *map(str, sources)])] if program and sources else None

    def rclone(self, source: Path, to: Path) -> list[Stage] | None:
        """``rclone copyto``, which makes nothing durable, and an fsync of the copy."""
        program = self.program("rclone")
        if program is None or not self.program("sync"):
            return None
        line = '"$1" copyto --config "" "$2" "$3" && sync -- "$3"'
        return [Stage([_SHELL, "-c", line, "rclone", program, str(source), str(to)])]

    def rclone_s3(self, upload: Upload) -> list[Stage] | None:
        """``rclone copyto`` to the bucket; it digests every part, as it always does."""
        program = self.program("rclone")
        if program is None:
            return None
        at = upload.destination
        key = "/".join(part for part in (at.bucket, at.prefix, upload.key) if part)
        part = f"{max(5, upload.part_size >> 20)}M"
        argv = [
            *(program, "copyto", "--config", "", "--s3-no-check-bucket", "--s3-no-head"),
            *("--s3-chunk-size", part, "--s3-upload-concurrency", str(upload.concurrency), "--s3-upload-cutoff", part),
            *(str(upload.source), f":s3,provider=Other,env_auth=true:{key}"),
        ]
        more = {"RCLONE_S3_ENDPOINT": at.endpoint} if at.endpoint else {}
        return [Stage(argv, {**upload.environment, **more, "RCLONE_S3_REGION": "us-east-1"}, upload.secrets)]

    def s5cmd_fetch(self, upload: Upload, to: Path) -> list[Stage] | None:
        """``s5cmd cp`` of everything below the prefix."""
        program = self.program("s5cmd")
        if program is None:
            return None
        at = upload.destination
        endpoint = ["--endpoint-url", at.endpoint] if at.endpoint else []
        options = ["--concurrency", str(upload.concurrency), "--part-size", str(max(5, upload.part_size >> 20))]
        prefix = "/".join(part for part in (at.bucket, at.prefix) if part)
        argv = [program, *endpoint, "--log", "error", "cp", *options, f"s3://{prefix}/*", f"{to}/"]
        return [Stage(argv, upload.environment, upload.secrets)]

    def borg(self, source: Path, repository: Path) -> tuple[Stage, Stage] | None:
        """How a repository is made, and ``borg create`` with zstd level 3 into it, without encryption."""
        program = self.program("borg")
        if program is None:
            return None
        own = {"BORG_BASE_DIR": str(repository.parent), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        create = [program, "create", "--compression", "zstd,3", f"{repository}::bench", str(source)]
        return Stage([program, "init", "-e", "none", str(repository)], own), Stage(create, own)

    def restic(self, source: Path, repository: Path) -> tuple[Stage, Stage] | None:
        """How a repository is made, and ``restic backup`` into it, with the compression it has by default."""
        program = self.program("restic")
        if program is None:
            return None
        at = [program, "-r", str(repository), "--no-cache", "-q"]
        own = {"RESTIC_PASSWORD": "bench"}
        return Stage([*at, "init"], own), Stage([*at, "backup", str(source)], own)

    def zstd_dd(self, source: Path, to: Path, level: int) -> list[Stage] | None:
        """``zstd -T2 | dd``, durable at its end."""
        zstd, dd = self.program("zstd"), self.program("dd")
        if not zstd or not dd:
            return None
        write = Stage([dd, f"of={to}", "bs=4M", "iflag=fullblock", "oflag=direct", "conv=fsync"])
        return [_zstd(zstd, level, source), write]

    def _s5cmd(self, program: str, upload: Upload, verb: str, *source: str) -> Stage:
        endpoint = ["--endpoint-url", upload.destination.endpoint] if upload.destination.endpoint else []
        key = "/".join(part for part in (upload.destination.bucket, upload.destination.prefix, upload.key) if part)
        size = max(5, upload.part_size >> 20)  # s5cmd counts in MiB
        options = ["--concurrency", str(upload.concurrency), "--part-size", str(size)]
        argv = [program, *endpoint, "--log", "error", verb, *options, *source, f"s3://{key}"]
        return Stage(argv, upload.environment, upload.secrets)


def _zstd(program: str, level: int, source: Path) -> Stage:
    return Stage([program, f"-{level}", "-T2", "-q", "-c", str(source)])
