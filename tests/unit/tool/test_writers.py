"""A file that changes while it is digested, or that somebody has open to write, is no output."""

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
    """Have the test run on a file system with leases, and as on one without."""
    if request.param == "no leases":
        monkeypatch.setattr(publishing, "has_leases", lambda folder: False)


def write(path: Path, content: bytes) -> None:
    """Add to a file, read-only or not. Its size tells, where clocks are too coarse to do so."""
    path.chmod(0o644)
    with path.open("ab") as file:
        file.write(content)


def on_call(number: int, act: Callable[[], object]) -> Callable[[], None]:
    """Return a check that acts when it is called for the `number`th time; one call is for the folder."""
    calls = iter(range(1, 1000))

    def check() -> None:
        if next(calls) == number:
            act()

    return check


@pytest.mark.usefixtures("leases")
def test_a_file_that_changes_while_it_is_digested_is_named(tmp_path: Path) -> None:
    """What was read before and after is of two files."""
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(3 * CHUNK))
    folders = 2
    with pytest.raises(ToolError, match=r"'model.bin' changed while outputs were digested"):
        scan(tmp_path, on_call(folders + 2, lambda: write(path, b"x")))


@pytest.mark.usefixtures("leases")
@pytest.mark.parametrize("change", ["write", "replace", "remove"])
def test_a_file_that_changes_after_its_digest_is_named(tmp_path: Path, change: str) -> None:
    """Its digest was true when it was made, but other files took longer."""
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
def test_one_file_by_several_names_does_not_change(tmp_path: Path) -> None:
    """Nor does one that the tool has made read-only itself."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to("a")
    (tmp_path / "d").write_bytes(b"d")
    (tmp_path / "d").chmod(0o444)
    assert [entry.path for entry in scan(tmp_path, lambda: None)] == ["a", "b", "c", "d"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o444}


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_file_that_is_open_to_write_is_named(
    tmp_path: Path, is_mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only memory is left of the open file. Who can be seen to have it open is named, too."""
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


def test_a_file_that_is_closed_soon_is_an_output(tmp_path: Path) -> None:
    """The kernel may close what an ended process had open a moment later."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    file = path.open("r+b")
    timer = threading.Timer(0.1, file.close)
    timer.start()
    assert [entry.path for entry in scan(tmp_path, lambda: None)] == ["file"]
    timer.join()


def test_readers_do_no_harm(tmp_path: Path) -> None:
    """Who only looks changes nothing."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        assert [entry.path for entry in scan(tmp_path, lambda: None)] == ["file"]


def test_a_writer_that_comes_while_the_kernel_is_asked_does_no_harm(tmp_path: Path) -> None:
    """It breaks a lease, which is announced by a signal that would end a process."""
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
