"""Metrics on disk: their names, and what the log says of lines that are no points."""

from __future__ import annotations

from pathlib import Path

import pytest

from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.formats.metric_lines import parse_points
from bonseyes_dagster.tool.artifacts.metrics import MetricsWriter, iter_metric, metric_names, skipped_lines


def test_skipped_lines_are_counted(tmp_path: Path) -> None:
    """Empty lines are not worth a sentence."""
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
def test_names_of_metrics(tmp_path: Path, name: str, file: str) -> None:
    """Names that were always allowed have the files that they always had."""
    MetricsWriter(tmp_path).add(name, 1, 0.5)
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert metric_names(tmp_path) == [name]
    assert parse_points(b"".join(iter_metric(tmp_path, name, 0)).splitlines())[0].value == 0.5


@pytest.mark.parametrize(
    "name", ["", "../x", "/etc/passwd", "a//b", ".hidden", "back\\slash", "new\nline", "x" * 129, "名" * 99]
)
def test_a_name_that_cannot_be_taken_is_made_safe(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The tool goes on, however long it has worked already; the log says once under which name the points are."""
    writer = MetricsWriter(tmp_path / "metrics")
    writer.add(name, 1, 0.5)
    writer.add(name, 2, 0.25)
    (kept,) = metric_names(tmp_path / "metrics")
    assert len(b"".join(iter_metric(tmp_path / "metrics", kept, 0)).splitlines()) == 2
    assert len(caplog.records) == 1 and kept in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["metrics"]


def test_programs_may_name_files_as_they_are(tmp_path: Path) -> None:
    """A program need not encode what a file can be called."""
    (tmp_path / "mAP@0.5").write_bytes(b"1 2 3\n")
    (tmp_path / "loss%2Ftrain").write_bytes(b"1 2 3\n")
    (tmp_path / ".hidden").write_bytes(b"1 2 3\n")
    assert metric_names(tmp_path) == ["loss/train", "mAP@0.5"]
    assert b"".join(iter_metric(tmp_path, "mAP@0.5", 0)) == b"1 2 3\n"


@pytest.mark.parametrize("name", ["../log", "..", "loss/../../log", "nothing"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """Whatever a request asks for."""
    (tmp_path / "log").write_bytes(b"1 2 3\n")
    (tmp_path / "metrics").mkdir()
    with pytest.raises(NotFoundError):
        iter_metric(tmp_path / "metrics", name, 0)
