"""`mover bench` with tiny sizes, at a directory and at the discarding sink: rows, reports, and nothing left behind."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mover.bench import suites
from mover.cli import app
from mover.config import OPTIONS

ROOT = Path(__file__).parents[2]
SECRET = "TOPSECRET5"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for option in OPTIONS:
        monkeypatch.delenv(option.env, raising=False)
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("MOVER_CONFIG", str(tmp_path / "empty.toml"))
    monkeypatch.setenv("MOVER_SCRATCH_DIR", str(tmp_path / "scratch"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def sink(tmp_path_factory):
    """The sink, built and running: its address."""
    program = tmp_path_factory.mktemp("sink") / "s3-sink"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-pthread"]
    subprocess.run([compiler, *flags, "-o", str(program), str(ROOT / "bench" / "sink.c"), "-lm"], check=True)
    with subprocess.Popen([str(program)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def bench(capsys, *arguments):
    status = app.run(["bench", *arguments, "--pairs", "1", "--warm-up", "0", "--quiet", "--json"])
    out, err = capsys.readouterr()
    assert (status, err) == (0, ""), out
    return json.loads(out)["rows"]


def test_pipeline_to_a_directory(capsys, tmp_path):
    dest, out = tmp_path / "dest", tmp_path / "out"
    dest.mkdir()
    rows = bench(
        capsys, "pipeline", "--dest", f"file://{dest}", "--size", "4MiB", "--kind", "rows", "--kind", "engine",
        "--out", str(out),
    )  # fmt: skip
    assert {row["peer"]["name"] for row in rows} >= {"dd oflag=direct, fsync", "dd, fsync"}
    engine = next(row for row in rows if row["work"].startswith("engine"))
    assert engine["mover"]["bytes_in"] == engine["peer"]["bytes_in"] == 4 << 20
    assert 4 << 20 <= engine["mover"]["bytes_out"] < 4.1 * (1 << 20)
    assert engine["target"]
    squeezed = next(row for row in rows if row["work"].startswith("rows blocks, zstd:1"))
    assert squeezed["mover"]["bytes_out"] < 2 << 20
    assert list(dest.glob("mover-bench*")) == []
    assert list((tmp_path / "scratch").iterdir()) == []
    assert json.loads((out / "pipeline.json").read_text())["rows"] == rows


@pytest.mark.parametrize("suite", ["target", "pipeline"])
def test_a_bucket(capsys, sink, suite):
    """Keys in the URL reach mover, and no report."""
    url = f"s3://bench/p?endpoint=http://{sink}&access_id=id&access_key={SECRET}"
    only = ["--kind", "incompressible"] if suite == "pipeline" else []
    app.run(["bench", suite, "--dest", url, "--size", "18MiB", "--pairs", "1", "--warm-up", "0", "--json", *only])
    out, err = capsys.readouterr()
    assert SECRET not in out + err
    for row in json.loads(out)["rows"]:
        assert row["mover"]["bytes_in"] == 18 << 20
        assert row["mover"]["bytes_out"] >= 18 << 20
        assert row["mover"]["cpu_s_per_gb"] > 0


@pytest.mark.parametrize("profile", ["aws&addressing=path&region=us-east-1", "generic"])
def test_the_sink_says_what_a_writer_wants_to_hear(sink, monkeypatch, profile):
    """It is enough of a server for the client that confirms what it wrote; large content can not be read back."""
    import asyncio

    from mover.errors import TargetError, TargetExists
    from mover.target.base import BytesPart
    from mover.target.url import open_target

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")

    async def story():
        url = f"s3://bench/{profile[:3]}?endpoint=http://{sink}&profile={profile}"
        target = await open_target(url)
        try:
            writer = await target.create("large")
            for _ in range(3):
                await writer.write(BytesPart(bytes(5 << 20)))
            assert (await writer.commit()).size == 15 << 20
            await target.put("small", b"0123456789", if_absent=True)
            with pytest.raises(TargetExists):
                await target.put("small", b"y", if_absent=True)
            assert [(info.path, info.size) async for info in target.list("")] == [("large", 15 << 20), ("small", 10)]
            assert await target.get("small") == b"0123456789"
            assert await target.get("small", 3, 4) == b"3456"
            with pytest.raises(TargetError):
                await target.get("large", 0, 10)
            await target.delete("large")
            assert await target.stat("large") is None
        finally:
            await target.aclose()

    asyncio.run(story())


def test_what_the_sink_makes_of_parts_is_what_amazon_makes(sink):
    """ETag and CRC-32C of a multipart object, of what was said of its parts; headers come back as they came."""
    import base64
    import hashlib
    import http.client
    import re

    import google_crc32c

    host, _, port = sink.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)

    def ask(method, path, body=b"", **headers):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()

    def crc(data):
        return google_crc32c.value(data).to_bytes(4, "big")

    _, _, text = ask("POST", "/b/k?uploads", x_amz_meta_one="1", x_amz_meta_two="2")
    upload = re.search("<UploadId>(.*)</UploadId>", text)[1]
    parts = [bytes([number]) * (3 << 20) for number in range(5)]
    for number, part in enumerate(parts, 1):
        said = base64.b64encode(crc(part)).decode()
        md5 = base64.b64encode(hashlib.md5(part).digest()).decode()
        status, headers, _ = ask(
            "PUT", f"/b/k?partNumber={number}&uploadId={upload}", part, x_amz_checksum_crc32c=said, Content_MD5=md5
        )
        assert (status, headers["x-amz-checksum-crc32c"]) == (200, said)
        assert headers["ETag"] == f'"{hashlib.md5(part).hexdigest()}"'
    status, _, text = ask("POST", f"/b/k?uploadId={upload}", b"<CompleteMultipartUpload/>")
    composite = base64.b64encode(crc(b"".join(map(crc, parts)))).decode() + "-5"
    etag = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest() + "-5"
    assert status == 200
    assert f"<ChecksumCRC32C>{composite}</ChecksumCRC32C>" in text
    assert etag in text
    status, headers, _ = ask("HEAD", "/b/k", x_amz_checksum_mode="ENABLED")
    assert (status, headers["Content-Length"], headers["ETag"]) == (200, str(15 << 20), f'"{etag}"')
    assert (headers["x-amz-checksum-crc32c"], headers["x-amz-meta-one"], headers["x-amz-meta-two"]) == (
        composite, "1", "2",
    )  # fmt: skip
    connection.close()


def test_kernel_loops(capsys, monkeypatch):
    """Every loop runs, each on the twin it says; the native one against pure Python."""
    from mover.bench import kernel_loops

    wanted = ("ob_crc64", "palf_walk", "clog, read and walk", "frame, rows, zstd:1", "read, verify, digest")
    monkeypatch.setattr(kernel_loops, "LOOPS", {name: kernel_loops.LOOPS[name] for name in wanted})
    rows = bench(capsys, "kernel", "--seconds", "0.001")
    assert {row["work"].removeprefix("kernel: ") for row in rows} == set(wanted)
    assert all(row["basis"] == "without start-up" for row in rows)
    assert any(row["target"] for row in rows)


def test_every_loop_makes_a_call(tmp_path):
    from mover.bench.data import write_block_file
    from mover.bench.kernel_loops import LOOPS, PEER_LOOPS, make_loop

    write_block_file(tmp_path / "blocks", "incompressible", 1)
    for name in (*LOOPS, *PEER_LOOPS):
        loop = make_loop(name, tmp_path / "blocks")
        loop.call()
        assert loop.size > 0


def test_a_destination_that_is_not_there_is_unreachable(capsys, tmp_path):
    status = app.run(["bench", "target", "--dest", f"file://{tmp_path / 'x'}", "--size", "2MiB", "--json"])
    out, _ = capsys.readouterr()
    assert status == 7
    assert json.loads(out)["error"]["kind"] == "UnreachableError"
    assert not (tmp_path / "x").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_peers_are_optional(tmp_path, monkeypatch):
    from mover.bench.peers import Peers

    monkeypatch.setenv("PATH", str(tmp_path))
    peers = Peers(None)
    assert peers.program("s5cmd") is None
    assert peers.obstore() is None
    assert peers.dd(tmp_path / "a", tmp_path / "b", direct=True) is None
    assert peers.versions() == {}
    assert set(suites.SUITES) == {"kernel", "target", "pipeline", "archive", "restore", "peers", "start"}
