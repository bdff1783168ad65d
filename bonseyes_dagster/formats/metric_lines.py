"""Read metric lines, `UNIX_TIME STEP VALUE`, for the routes, the client, the charts and the worker.

Tools write these lines, each in its own way. So the reader skips a line that is not a point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from bonseyes_dagster.model import Point

__all__ = ["parse_point", "parse_points"]

_WORDS = 3
_STEPS_LIMIT = 1 << 63


def parse_point(line: bytes) -> Point | None:
    """Return the point of a line, or None for an empty line, a header or any other text.

    A number may have a decimal comma. A step may be written `3.0` or `1e+06`. A value may be infinite or NaN.
    """
    words = line.split()
    if len(words) < _WORDS:
        return None
    try:
        moment, step, value = _number(words[0]), _step(words[1]), _number(words[2])
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(moment) or abs(step) >= _STEPS_LIMIT:
        return None
    return Point(moment, step, value)


def parse_points(lines: Iterable[bytes]) -> list[Point]:
    """Return the points of all lines; skip the lines that are not points."""
    return [point for point in map(parse_point, lines) if point is not None]


def _number(word: bytes) -> float:
    try:
        return float(word)
    except ValueError:
        if b"." in word:
            raise
        return float(word.replace(b",", b".", 1))


def _step(word: bytes) -> int:
    try:
        return int(word)
    except ValueError:
        return int(_number(word))
