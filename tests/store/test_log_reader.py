"""Reading ranges of log files past the page cache, and giving the memory back."""

import errno
import os

import pytest

from mover.errors import FormatError, LogGapError
from mover.kernel.palf import PALF_FILE_BYTES, PALF_FILE_HEADER, PalfBlockHeader, palf_block_header_build
from mover.store.seekdb.hold import LogHold
from mover.store.seekdb.log_reader import LogReader

CONTENT = bytes(range(256)) * 400


def write_file(directory, number, content=CONTENT, block_id=None):
    header = PalfBlockHeader(0, number * PALF_FILE_BYTES, 1, 0, number if block_id is None else block_id)
    page = palf_block_header_build(header).ljust(PALF_FILE_HEADER, b"\0")
    (directory / str(number)).write_bytes(page + content)


@pytest.fixture
def log_dir(tmp_path):
    directory = tmp_path / "log"
    directory.mkdir()
    write_file(directory, 3)
    return directory


@pytest.fixture(params=["direct", "cached", "large sectors"])
def reader(request, tmp_path, log_dir, monkeypatch):
    """However the file system takes O_DIRECT."""
    real_open, real_read = os.open, os.preadv
    if request.param == "cached":

        def refusing(path, flags, *arguments, **options):
            if flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return real_open(path, flags, *arguments, **options)

        monkeypatch.setattr(os, "open", refusing)
    if request.param == "large sectors":
        import fcntl

        def unaligned(fd, buffers, offset):
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return real_read(fd, buffers, offset)

        monkeypatch.setattr(os, "preadv", unaligned)
    opened = LogReader(LogHold(log_dir, [tmp_path], "archive"), log_dir)
    yield opened
    opened.close()


def test_any_range_of_a_file(reader):
    base = 3 * PALF_FILE_BYTES
    for first, last in ((0, 10), (0, 5000), (1, 4096), (4095, 4097), (4096, 8192), (100, 90_000)):
        lent, header = reader.read(base + first, base + last)
        assert bytes(lent.data) == CONTENT[first:last]
        assert (header is not None and len(header) == 48) == (first == 0)
        lent.release()
    assert reader.where(3).name == "3"


def test_behind_the_end_of_a_file_are_zeros_whatever_was_in_the_memory(reader):
    base = 3 * PALF_FILE_BYTES
    full, _ = reader.read(base, base + 60_000)
    full.release()
    end = len(CONTENT)
    lent, _ = reader.read(base + end - 100, base + end + 50_000)
    assert bytes(lent.data) == CONTENT[-100:] + bytes(50_000)
    lent.release()
    lent, _ = reader.read(base + end + 9000, base + end + 9010)
    assert bytes(lent.data) == bytes(10)


def test_lent_memory_is_not_lent_twice(reader):
    base = 3 * PALF_FILE_BYTES
    first, _ = reader.read(base + 10, base + 20)
    second, _ = reader.read(base + 30, base + 40)
    assert (bytes(first.data), bytes(second.data)) == (CONTENT[10:20], CONTENT[30:40])
    first.release()
    first.release()
    third, _ = reader.read(base + 50, base + 60)
    fourth, _ = reader.read(base + 70, base + 80)
    assert [bytes(lent.data) for lent in (second, third, fourth)] == [CONTENT[at : at + 10] for at in (30, 50, 70)]
    large, _ = reader.read(base, base + (3 << 20))
    assert bytes(large.data) == CONTENT + bytes((3 << 20) - len(CONTENT))


def test_a_file_that_is_replaced_is_opened_anew(reader, log_dir):
    base = 3 * PALF_FILE_BYTES
    reader.read(base + 10, base + 20)[0].release()
    (log_dir / "3").unlink()
    write_file(log_dir, 3, CONTENT[::-1])
    lent, _ = reader.read(base + 10, base + 20)
    assert bytes(lent.data) == CONTENT[::-1][10:20]


def test_a_file_that_is_gone_is_a_gap(reader, log_dir):
    write_file(log_dir, 5)
    with pytest.raises(LogGapError) as gap:
        reader.read(4 * PALF_FILE_BYTES + 7, 4 * PALF_FILE_BYTES + 9)
    assert gap.value.where["from_lsn"] == 4 * PALF_FILE_BYTES + 7
    assert gap.value.where["until_lsn"] == 5 * PALF_FILE_BYTES


def test_a_file_under_a_wrong_number_is_refused(reader, log_dir):
    write_file(log_dir, 4, block_id=9)
    with pytest.raises(FormatError, match="says it is block 9"):
        reader.read(4 * PALF_FILE_BYTES, 4 * PALF_FILE_BYTES + 100)
