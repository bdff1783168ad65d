"""A file that changes while it is digested, or that a process has open to write, is no output."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bonseyes_dagster.errors import ToolError
from bonseyes_dagster.tool.artifacts import publishing
from bonseyes_dagster.tool.artifacts.publishing import scan
from bonseyes_dagster.tool.files import writers

CHUNK = 1 << 20


@pytest.fixture(params=["leases", "no leases"])
def leases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test on a file system with leases, and as on one without."""
    if request.param == "no leases":
        monkeypatch.setattr(publishing, "has_leases", lambda folder: False)


def write(path: Path, content: bytes) -> None:
    """Append to a file with any mode. The size shows the change, even if the clock is too coarse."""
    path.chmod(0o644)
    with path.open("ab") as file:
        file.write(content)


def on_call(number: int, act: Callable[[], object]) -> Callable[[], None]:
    """Return a check that calls `act` at its call number `number`; the walk calls it once per folder."""
    calls = iter(range(1, 1000))

    def check() -> None:
        if next(calls) == number:
            act()

    return check


@pytest.mark.usefixtures("leases")
def test_file_that_changes_while_it_is_digested_is_refused(tmp_path: Path) -> None:
    """Its digest would mix two contents."""
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(3 * CHUNK))
    folders = 2
    with pytest.raises(ToolError, match=r"'model.bin' changed while outputs were digested"):
        scan(tmp_path, on_call(folders + 2, lambda: write(path, b"x")))


@pytest.mark.usefixtures("leases")
@pytest.mark.parametrize("change", ["write", "replace", "remove"])
def test_file_that_changes_after_its_digest_is_refused(tmp_path: Path, change: str) -> None:
    """The digest was right, but other files were digested later."""
    path = tmp_path / "a"
    path.write_bytes(b"a")
    (tmp_path / "b").write_bytes(bytes(2 * CHUNK))
    other = tmp_path.with_name("other")
    other.write_bytes(b"c")
    acts: dict[str, Callable[[], object]] = {
        "write": lambda: write(path, b"x"),
        "replace": lambda: other.replace(path),
        "remove": path.unlink,
    }
    folders = 2
    with pytest.raises(ToolError, match="'a' changed while"):
        scan(tmp_path, on_call(folders + 3, acts[change]))


@pytest.mark.usefixtures("leases")
def test_file_with_several_links_is_published(tmp_path: Path) -> None:
    """So is a file that the tool has made read-only."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to("a")
    (tmp_path / "d").write_bytes(b"d")
    (tmp_path / "d").chmod(0o444)
    assert [entry.path for entry in scan(tmp_path, lambda: None)] == ["a", "b", "c", "d"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o444}


@pytest.mark.parametrize("is_mapped", [False, True])
def test_file_open_to_write_is_refused(tmp_path: Path, is_mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it is only mapped to memory. The message names the process, if it is visible."""
    monkeypatch.setattr(publishing, "_CLOSED_WITHIN_S", 0.1)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0) if is_mapped else None
        if is_mapped:
            os.close(os.dup(file.fileno()))
            file.close()
        with pytest.raises(ToolError, match="'file' is still open to write in another process") as raised:
            scan(tmp_path, lambda: None)
        assert is_mapped or f"({os.getpid()})" in raised.value.message
    if memory is not None:
        memory.close()
    assert [entry.path for entry in scan(tmp_path, lambda: None)] == ["file"]


def test_file_that_is_closed_soon_is_published(tmp_path: Path) -> None:
    """The kernel may close files of an ended process a moment later."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    file = path.open("r+b")
    timer = threading.Timer(0.1, file.close)
    timer.start()
    assert [entry.path for entry in scan(tmp_path, lambda: None)] == ["file"]
    timer.join()


def test_file_open_to_read_is_published(tmp_path: Path) -> None:
    """A reader does not change the file."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        assert [entry.path for entry in scan(tmp_path, lambda: None)] == ["file"]


def test_writer_that_breaks_a_lease_does_not_end_the_process(tmp_path: Path) -> None:
    """The kernel announces it by a signal, which ends a process by default."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    stop = threading.Event()

    def write_often() -> None:
        while not stop.is_set():
            with path.open("r+b"):
                pass

    thread = threading.Thread(target=write_often)
    thread.start()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        answers = {writers.is_open_to_write(descriptor) for _ in range(5000)}
    finally:
        stop.set()
        thread.join()
        os.close(descriptor)
    assert answers <= {True, False}
    assert not writers.has_leases(Path("/proc"))
