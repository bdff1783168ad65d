"""Metrics, progress and log of a running tool: one process writes them, others read them."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.model import Progress
from bonseyes_dagster.tool.artifact import Artifact
from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.tool.artifacts.logs import iter_log
from bonseyes_dagster.tool.artifacts.metrics import MetricsWriter, iter_metric, metric_names
from bonseyes_dagster.tool.artifacts.progress import ProgressWriter, progress_from_json, read_progress
from bonseyes_dagster.tool.worker import state
from bonseyes_dagster.tool.worker.bell import Bell, Waiters


@pytest.fixture
def artifact(tmp_path: Path) -> Iterator[Artifact]:
    """Return the object that the function of a tool gets."""
    metrics = MetricsWriter(tmp_path / "metrics")
    yield Artifact(
        "a", {}, output=tmp_path / "out", metrics=metrics, progress=ProgressWriter(tmp_path / "progress.json")
    )
    metrics.close()


def test_point_is_a_line_with_time_step_and_value(artifact: Artifact, tmp_path: Path) -> None:
    """Values keep their precision."""
    artifact.scalar("loss", 1, 0.1 + 0.2)
    artifact.scalar("loss", 2, float("nan"))
    artifact.scalar("accuracy", 1, 1)
    assert metric_names(tmp_path / "metrics") == ["accuracy", "loss"]
    lines = b"".join(iter_metric(tmp_path / "metrics", "loss", 0)).decode().splitlines()
    moment, step, value = lines[0].split()
    assert abs(float(moment) - time.time()) < 10
    assert (step, float(value)) == ("1", 0.1 + 0.2)
    assert lines[1].endswith(" 2 nan")
    with pytest.raises(ValueError, match="could not convert"):
        artifact.scalar("loss", 3, "much")  # type: ignore[arg-type]


def test_only_whole_lines_of_a_metric_are_read(tmp_path: Path) -> None:
    """The rest of a line comes with the next read. A missing metric is an error at once."""
    (tmp_path / "m").write_bytes(b"1 1 1\n2 2 2\n3 3")
    assert b"".join(iter_metric(tmp_path, "m", 0)) == b"1 1 1\n2 2 2\n"
    assert b"".join(iter_metric(tmp_path, "m", 6)) == b"2 2 2\n"
    assert b"".join(iter_metric(tmp_path, "m", 12)) == b""
    assert b"".join(iter_metric(tmp_path, "m", 2**62)) == b""
    for name in ("n", "../m", "/etc/passwd"):
        with pytest.raises(NotFoundError):
            iter_metric(tmp_path, name, 0)
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert metric_names(tmp_path) == ["m"]
    with pytest.raises(NotFoundError):
        iter_metric(tmp_path, "link", 0)


def test_progress_writes_few_files_and_the_last_state(artifact: Artifact, tmp_path: Path) -> None:
    """A tool may report thousands of steps in a second."""
    written: list[int] = []
    writer = artifact._progress
    flush = writer.flush
    writer.flush = lambda: (written.append(1), flush())[1]  # type: ignore[method-assign, func-returns-value]
    assert list(artifact.progress(range(1000), unit="samples")) == list(range(1000))
    assert len(written) < 50
    assert read_progress(tmp_path / "progress.json") == {
        "done": 1000,
        "total": 1000,
        "unit": "samples",
        "message": None,
    }


def test_progress_accepts_numpy_numbers(tmp_path: Path) -> None:
    """A count from an array is no int."""
    writer = ProgressWriter(tmp_path / "progress.json")
    writer.set(Progress(np.int64(3), np.float32(4), "samples"))  # type: ignore[arg-type]
    assert progress_from_json(read_progress(tmp_path / "progress.json")) == Progress(3, 4, "samples")


def test_invalid_progress_file_gives_empty_values(tmp_path: Path) -> None:
    """A command tool may write anything to this file, and the status must still work."""
    path = tmp_path / "progress.json"
    assert read_progress(path) is None
    for content in ("", "[1]", "{", '"x"', "[" * 100_000):
        path.write_text(content)
        assert progress_from_json(read_progress(path)) == Progress()
    path.write_text('{"done": 1, "total": "many", "unit": 3, "message": "m", "other": 1}')
    assert progress_from_json(read_progress(path)) == Progress(1, None, None, "m")
    assert progress_from_json({"done": float("nan"), "total": True}) == Progress()
    path.write_text(f'{{"done": 1{"0" * 400}, "total": 1e999, "unit": "m"}}')
    assert progress_from_json(read_progress(path)) == Progress(None, None, "m")


def test_path_outside_of_the_artifact_is_refused(artifact: Artifact) -> None:
    """Folders of a valid path are made."""
    path = artifact.path("a/b/c.npy")
    assert path.parent.is_dir() and path == artifact.folder / "a/b/c.npy"
    for wrong in ("/etc/passwd", "../x", "a/../../x", ""):
        with pytest.raises(ValueError, match="not a path"):
            artifact.path(wrong)


def test_log_is_followed_until_the_end(tmp_path: Path) -> None:
    """New lines come while they are written, from the offset on."""
    path = tmp_path / "log"
    is_final = threading.Event()
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.extend(iter_log(path, 3, is_final.is_set)))
    reader.start()
    path.write_bytes(b"one\n")
    time.sleep(0.2)
    with path.open("ab") as file:
        file.write(b"two\n")
    is_final.set()
    reader.join(5)
    assert b"".join(got) == b"\ntwo\n"
    assert b"".join(iter_log(path, 0, None)) == b"one\ntwo\n"
    assert list(iter_log(path, 2**62, None)) == []
    assert list(iter_log(tmp_path / "none", 0, None)) == []


def test_bell_wakes_all_waiting_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that counted the rings before a ring does not wait."""
    monkeypatch.setattr("bonseyes_dagster.tool.worker.bell._LONGEST_S", 30.0)
    bell = Bell(tmp_path / "bell")
    bell.ring()
    waiters = Waiters(bell)
    woken: list[float] = []
    counted = threading.Barrier(6)

    def wait() -> None:
        rings = waiters.count()
        counted.wait(30)
        waiters.wait(rings, 30)
        woken.append(time.monotonic())

    threads = [threading.Thread(target=wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    counted.wait(30)
    time.sleep(0.2)
    start = time.monotonic()
    bell.ring()
    for thread in threads:
        thread.join(40)
    assert len(woken) == 5 and max(woken) - start < 10
    before = waiters.count() - 1
    start = time.monotonic()
    waiters.wait(before, 30)
    assert time.monotonic() - start < 10


def test_state_that_cannot_be_written_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the worker must go on, and the old state is no longer true."""
    volume = Volume(tmp_path)
    state.write_state(volume, state="broken", reason="syntax")
    assert state.read_state(volume)["state"] == "broken"

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state, "replace_file", refuse)
    state.write_state(volume, state="ready")
    assert state.read_state(volume) == {}
