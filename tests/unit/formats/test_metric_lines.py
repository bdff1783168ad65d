"""Programs write numbers in different ways; the reader accepts all of them and skips other lines."""

from __future__ import annotations

import math

import pytest

from bonseyes_dagster.formats.metric_lines import parse_point, parse_points
from bonseyes_dagster.model import Point


@pytest.mark.parametrize(
    ("line", "point"),
    [
        (b"1.5 3 0.5", Point(1.5, 3, 0.5)),
        (b"1795898825,75 3 0,5\r\n", Point(1795898825.75, 3, 0.5)),
        (b"1 1e+06 0.5", Point(1.0, 1_000_000, 0.5)),
        (b"1 3.0 -inf", Point(1.0, 3, -math.inf)),
        (b"\t1 3,0 1,5e-3 ", Point(1.0, 3, 0.0015)),
        (b"1 9007199254740993 1", Point(1.0, 9007199254740993, 1.0)),
    ],
)
def test_lines_of_many_programs_are_points(line: bytes, point: Point) -> None:
    """From printf with LC_NUMERIC, from awk, with a float as step."""
    assert parse_point(line) == point


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"   ",
        b"time step value",
        b"1 2",
        b"nan 1 2",
        b"1 inf 2",
        b"1 nan 2",
        b"1 1e30 2",
        b"1 1 1,234.5",
        b"\xff 1 2",
    ],
)
def test_other_lines_are_skipped(line: bytes) -> None:
    """They cost nothing but themselves."""
    assert parse_points([line, b"1 2 3"]) == [Point(1.0, 2, 3.0)]
