"""The points of a metric as JSON and CSV."""

from __future__ import annotations

import csv
import io
import itertools
import json
import tracemalloc

import pytest

from bonseyes_dagster.web.responses.points import as_csv, as_json

LINES = b"1732861234.500000 1 0.5\n1732861235.000000 -2 1e-05\n1732861236.000000 3 nan\n1732861237.25 4 -inf\n"


@pytest.mark.parametrize("pieces", [[LINES], LINES.splitlines(keepends=True), [LINES, b"not a point\n", LINES]])
def test_points_do_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    """NaN and infinity become null and empty; other lines are left out."""
    points = [
        {"time": 1732861234.5, "step": 1, "value": 0.5},
        {"time": 1732861235.0, "step": -2, "value": 1e-05},
        {"time": 1732861236.0, "step": 3, "value": None},
        {"time": 1732861237.25, "step": 4, "value": None},
    ] * (2 if len(pieces) == 3 else 1)
    assert json.loads(b"".join(as_json(pieces))) == points
    rows = list(csv.DictReader(io.StringIO(b"".join(as_csv(pieces)).decode())))
    found = [(float(row["time"]), int(row["step"]), float(row["value"]) if row["value"] else None) for row in rows]
    assert found == [tuple(point.values()) for point in points]


def test_no_points_are_an_empty_list() -> None:
    """The JSON stays valid."""
    assert b"".join(as_json([])) == b"[]"
    assert b"".join(as_json([b"nonsense\n"])) == b"[]"
    assert b"".join(as_csv([])) == b"time,step,value\n"


def test_memory_does_not_grow_with_the_points() -> None:
    """A metric may have ten million points."""
    pieces = itertools.repeat(b"1732861234.500000 1 0.5\n" * 1000, 200)
    tracemalloc.start()
    assert sum(map(len, as_json(pieces))) > 10_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
