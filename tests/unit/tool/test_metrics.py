"""Metrics on disk: their names, and the note in the log about lines that are no points."""

from __future__ import annotations

from pathlib import Path

import pytest

from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.formats.metric_lines import parse_points
from bonseyes_dagster.tool.artifacts.metrics import MetricsWriter, iter_metric, metric_names, skipped_lines


def test_lines_that_are_no_points_are_counted(tmp_path: Path) -> None:
    """Empty lines are not reported."""
    (tmp_path / "loss").write_bytes(b"time step value\n1 2 3\n\n1 2 x\n")
    (tmp_path / "accuracy").write_bytes(b"1 2,0 0,5\n\n")
    assert list(skipped_lines(tmp_path)) == [
        "The metric 'loss' has 2 lines that are no point, as 'time step value': a point is `UNIX_TIME STEP VALUE`."
    ]
    assert list(skipped_lines(tmp_path / "nothing")) == []


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("loss", "loss"),
        ("val_loss.2-x", "val_loss.2-x"),
        ("loss/train", "loss%2Ftrain"),
        ("mAP@0.5", "mAP%400%2E5"),
        ("top 5 (accuracy) [%]", "top%205%20%28accuracy%29%20%5B%25%5D"),
        ("précision", "pr%C3%A9cision"),
        ("a..b", "a%2E%2Eb"),
        ("_loss", "%5Floss"),
    ],
)
def test_metric_names_become_file_names(tmp_path: Path, name: str, file: str) -> None:
    """Names that earlier versions allowed keep their file names."""
    MetricsWriter(tmp_path).add(name, 1, 0.5)
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert metric_names(tmp_path) == [name]
    assert parse_points(b"".join(iter_metric(tmp_path, name, 0)).splitlines())[0].value == 0.5


@pytest.mark.parametrize(
    "name", ["", "../x", "/etc/passwd", "a//b", ".hidden", "back\\slash", "new\nline", "x" * 129, "名" * 99]
)
def test_invalid_metric_name_is_made_valid(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The tool may have worked for hours, so it goes on. The log has the new name, once."""
    writer = MetricsWriter(tmp_path / "metrics")
    writer.add(name, 1, 0.5)
    writer.add(name, 2, 0.25)
    (kept,) = metric_names(tmp_path / "metrics")
    assert len(b"".join(iter_metric(tmp_path / "metrics", kept, 0)).splitlines()) == 2
    assert len(caplog.records) == 1 and kept in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["metrics"]


def test_program_may_use_metric_names_without_encoding(tmp_path: Path) -> None:
    """It need not encode names that are valid file names."""
    (tmp_path / "mAP@0.5").write_bytes(b"1 2 3\n")
    (tmp_path / "loss%2Ftrain").write_bytes(b"1 2 3\n")
    (tmp_path / ".hidden").write_bytes(b"1 2 3\n")
    assert metric_names(tmp_path) == ["loss/train", "mAP@0.5"]
    assert b"".join(iter_metric(tmp_path, "mAP@0.5", 0)) == b"1 2 3\n"


@pytest.mark.parametrize("name", ["../log", "..", "loss/../../log", "nothing"])
def test_metric_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    """A request may ask for any name."""
    (tmp_path / "log").write_bytes(b"1 2 3\n")
    (tmp_path / "metrics").mkdir()
    with pytest.raises(NotFoundError):
        iter_metric(tmp_path / "metrics", name, 0)
