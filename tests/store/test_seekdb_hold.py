"""The log hold on plain files: what is linked, what is let go, who may own it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mover.errors import ConfigError, LogGapError, PreconditionError, SourceError
from mover.kernel.palf import PALF_FILE_BYTES
from mover.store.seekdb.hold import LogHold


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "store" / "log"
    directory.mkdir(parents=True)
    for number in (3, 4, 5):
        (directory / str(number)).write_text(f"log {number}")
    (directory / "6.tmp").write_text("not a log file yet")
    return directory


def make(log_dir: Path, holder: str = "archive", *roots: Path) -> LogHold:
    return LogHold(log_dir, roots or (log_dir.parent.parent,), holder)


def wait_for(condition: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "condition never became true"
        time.sleep(0.01)


def test_hold_keeps_what_the_engine_unlinks(log_dir: Path) -> None:
    hold = make(log_dir)
    hold.hold(4 * PALF_FILE_BYTES + 77)
    for number in (3, 4, 5):
        (log_dir / str(number)).unlink()
    assert list(hold.files()) == [4, 5]
    assert hold.path_of(4).read_text() == "log 4"
    assert hold.path_of(3) is None
    assert hold.held_bytes() > 0
    hold.close(keep=False)


def test_watcher_links_new_files_and_the_link_keeps_filling(log_dir: Path) -> None:
    hold = make(log_dir)
    hold.hold(5 * PALF_FILE_BYTES)
    with (log_dir / "6").open("w") as file:
        wait_for((log_dir.parent.parent / "mover_hold/archive/6").exists)
        (log_dir / "6").unlink()
        file.write("written after the engine forgot it")
    assert hold.path_of(6).read_text() == "written after the engine forgot it"
    hold.close(keep=False)


def test_release_drops_whole_files_only_and_never_moves_back(log_dir: Path) -> None:
    hold = make(log_dir)
    hold.hold(3 * PALF_FILE_BYTES)
    hold.release(5 * PALF_FILE_BYTES - 1)
    hold.release(3 * PALF_FILE_BYTES)
    held = log_dir.parent.parent / "mover_hold" / "archive"
    assert sorted(path.name for path in held.iterdir() if path.name.isdecimal()) == ["4", "5"]
    assert hold.from_lsn == 5 * PALF_FILE_BYTES - 1
    hold.close(keep=False)
    assert not held.exists()
    assert not held.parent.exists()


def test_kept_hold_is_picked_up_by_the_next_process(log_dir: Path) -> None:
    first = make(log_dir)
    first.hold(4 * PALF_FILE_BYTES)
    first.close(keep=True)
    (log_dir / "4").unlink()
    (log_dir / "6").write_text("log 6")
    second = make(log_dir)
    assert second.from_lsn is None
    second.open()
    assert second.from_lsn == 4 * PALF_FILE_BYTES
    (log_dir / "6").unlink()
    assert list(second.files()) == [3, 4, 5, 6]
    second.close(keep=False)


def test_open_without_an_earlier_hold_holds_nothing(log_dir: Path) -> None:
    hold = make(log_dir)
    hold.open()
    assert hold.from_lsn is None
    assert list(hold.files()) == [3, 4, 5]
    hold.release(0)
    hold.close(keep=False)
    assert not (log_dir.parent.parent / "mover_hold").exists()


def test_recycled_log_cannot_be_held_and_the_gap_is_exact(log_dir: Path) -> None:
    (log_dir / "4").unlink()
    hold = make(log_dir)
    with pytest.raises(LogGapError) as caught:
        hold.hold(3 * PALF_FILE_BYTES + 9)
    assert caught.value.where["from_lsn"] == 4 * PALF_FILE_BYTES
    assert caught.value.where["until_lsn"] == 5 * PALF_FILE_BYTES
    with pytest.raises(LogGapError) as caught:
        hold.hold(2 * PALF_FILE_BYTES + 9)
    assert caught.value.where["from_lsn"] == 2 * PALF_FILE_BYTES + 9
    assert caught.value.where["until_lsn"] == 3 * PALF_FILE_BYTES
    hold.close(keep=False)


def test_one_holder_at_a_time_but_several_holders_side_by_side(log_dir: Path) -> None:
    archive, second, backup = make(log_dir), make(log_dir), make(log_dir, "backup")
    archive.hold(3 * PALF_FILE_BYTES)
    with pytest.raises(PreconditionError, match="another mover process"):
        second.hold(3 * PALF_FILE_BYTES)
    with pytest.raises(PreconditionError):
        second.open()
    backup.hold(5 * PALF_FILE_BYTES)
    archive.close(keep=False)
    assert list(backup.files()) == [3, 4, 5]
    (log_dir / "5").unlink()
    assert backup.path_of(5) is not None
    backup.close(keep=False)


def test_another_filesystem_is_passed_over(log_dir: Path) -> None:
    elsewhere = Path("/dev/shm") / f"mover-test-{os.getpid()}"
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == log_dir.stat().st_dev:
        pytest.skip("no second filesystem to try")
    elsewhere.mkdir()
    try:
        hold = make(log_dir, "archive", elsewhere, log_dir.parent)
        hold.hold(3 * PALF_FILE_BYTES)
        assert (log_dir.parent / "mover_hold" / "archive" / "3").exists()
        assert list(elsewhere.iterdir()) == []
        hold.close(keep=False)
        with pytest.raises(SourceError, match="cannot be hard-linked"):
            make(log_dir, "archive", elsewhere).hold(3 * PALF_FILE_BYTES)
    finally:
        for path in elsewhere.rglob("*"):
            path.rmdir()
        elsewhere.rmdir()


def test_a_link_of_an_older_inode_is_replaced(log_dir: Path) -> None:
    first = make(log_dir)
    first.hold(5 * PALF_FILE_BYTES)
    first.close(keep=True)
    (log_dir / "5").unlink()
    (log_dir / "5").write_text("another life of log 5")
    second = make(log_dir)
    second.open()
    held = log_dir.parent.parent / "mover_hold" / "archive" / "5"
    assert held.read_text() == "another life of log 5"
    second.close(keep=False)


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", "-a"])
def test_holder_names_cannot_leave_the_directory(log_dir: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        make(log_dir, name)


def test_a_damaged_hold_record_is_an_error(log_dir: Path) -> None:
    first = make(log_dir)
    first.hold(5 * PALF_FILE_BYTES)
    first.close(keep=True)
    (log_dir.parent.parent / "mover_hold/archive/from_lsn").write_text("x1")
    second = make(log_dir)
    with pytest.raises(SourceError, match="does not hold an lsn"):
        second.open()
    second.close(keep=True)
