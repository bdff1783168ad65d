"""The services' logs: rotated during writes, and read through rotations."""

from __future__ import annotations

import threading
from pathlib import Path

from bonseyes_dagster.embedded.logs import RotatingLog, follow, tail


def test_log_is_rotated_before_it_grows_too_large(tmp_path: Path) -> None:
    """The newest lines are in the file itself, and only `kept` older files stay."""
    file = tmp_path / "a.log"
    log = RotatingLog(file, limit_bytes=10, kept=2)
    for number in range(5):
        log.write(f"line {number}\n".encode())
    log.close()
    assert file.read_bytes() == b"line 4\n"
    assert (tmp_path / "a.log.1").read_bytes() == b"line 3\n"
    assert (tmp_path / "a.log.2").read_bytes() == b"line 2\n"
    assert not (tmp_path / "a.log.3").exists()


def test_log_is_continued_after_a_restart(tmp_path: Path) -> None:
    """A restart of the project appends, and counts the existing bytes."""
    file = tmp_path / "a.log"
    file.write_bytes(b"before\n")
    log = RotatingLog(file, limit_bytes=10, kept=1)
    log.write(b"after\n")
    log.write(b"later\n")
    log.close()
    assert file.read_bytes() == b"later\n"
    assert (tmp_path / "a.log.1").read_bytes() == b"before\nafter\n"


def test_line_longer_than_the_limit_is_kept_whole(tmp_path: Path) -> None:
    """The limit only decides when to rotate."""
    log = RotatingLog(tmp_path / "a.log", limit_bytes=4, kept=1)
    log.write(b"a long line\n")
    log.close()
    assert (tmp_path / "a.log").read_bytes() == b"a long line\n"


def test_tail_returns_the_last_lines(tmp_path: Path) -> None:
    """It does not read all of a long log; a missing log has no lines."""
    file = tmp_path / "a.log"
    file.write_bytes(b"".join(f"line {number}\n".encode() for number in range(10_000)))
    assert tail(file, 2) == [b"line 9998", b"line 9999"]
    assert tail(file, 0) == []
    assert tail(tmp_path / "none.log", 5) == []


def test_follow_yields_each_line_once_through_rotations(tmp_path: Path) -> None:
    """It begins at the end of the log; a line in two writes is one line."""
    file = tmp_path / "a.log"
    file.write_bytes(b"old\n")
    log = RotatingLog(file, limit_bytes=30, kept=3)
    writes = [b"one\n", b"tw", b"o\n", b"x" * 28 + b"\n", b"last\n"]

    def write_next() -> bool:
        if writes:
            log.write(writes.pop(0))
        return not writes

    lines = [line for _, line in follow({"a": file}, is_over=write_next, interval_s=0)]
    log.close()
    assert lines == [b"one", b"two", b"x" * 28, b"last"]


def test_follow_yields_each_line_once_during_writes(tmp_path: Path) -> None:
    """The log grows and is rotated while it is read."""
    file = tmp_path / "a.log"
    file.touch()
    written = [b"%d" % number for number in range(200_000)]

    def write_all() -> None:
        log = RotatingLog(file)
        for line in written:
            log.write(line + b"\n")
        log.close()

    writer = threading.Thread(target=write_all)

    def is_over() -> bool:
        if writer.ident is None:
            writer.start()
        return not writer.is_alive()

    assert [line for _, line in follow({"a": file}, is_over=is_over, interval_s=0)] == written


def test_follow_waits_for_a_log_that_does_not_exist_yet(tmp_path: Path) -> None:
    """A service may write its first line later."""
    file = tmp_path / "later.log"
    steps = iter([False, False, True])

    def step() -> bool:
        is_over = next(steps)
        if is_over:
            file.write_bytes(b"first\n")
        return is_over

    assert list(follow({"later": file}, is_over=step, interval_s=0)) == [("later", b"first")]
