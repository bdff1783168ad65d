"""Metrics on disk: what the log says of lines that are no points."""

from __future__ import annotations

from pathlib import Path

from bonseyes_dagster.tool.metrics import skipped_lines


def test_skipped_lines_are_counted(tmp_path: Path) -> None:
    """Empty lines are not worth a sentence."""
    (tmp_path / "loss").write_bytes(b"time step value\n1 2 3\n\n1 2 x\n")
    (tmp_path / "accuracy").write_bytes(b"1 2,0 0,5\n\n")
    assert list(skipped_lines(tmp_path)) == [
        "The metric 'loss' has 2 lines that are no point, as 'time step value': a point is `UNIX_TIME STEP VALUE`."
    ]
    assert list(skipped_lines(tmp_path / "nothing")) == []
