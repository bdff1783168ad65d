"""The points of a metric as JSON or CSV, converted piece by piece from the lines of a backend."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from bonseyes_dagster.formats.metric_lines import parse_points

__all__ = ["as_csv", "as_json"]

# Nearly all lines match: their words are already JSON numbers. With a longer exponent, a number may be infinite.
_LINE = re.compile(
    rb"^((?:0|[1-9][0-9]*)(?:\.[0-9]+)?) (-?(?:0|[1-9][0-9]*)) "
    rb"(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,2})?)$",
    re.MULTILINE,
)


def as_json(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a JSON list of objects with `time`, `step` and `value`; `value` is null for NaN and infinity."""
    separator = b"["
    for piece in pieces:
        text = _replaced(piece, rb'{"time": \1, "step": \2, "value": \3},') or b"".join(
            json.dumps(point).encode() + b",\n" for point in _points(piece)
        )
        if text:
            yield separator + text.rstrip(b",\n")
            separator = b",\n"
    yield b"[]" if separator == b"[" else b"]"


def as_csv(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a line `time,step,value`, then a line for each point."""
    yield b"time,step,value\n"
    for piece in pieces:
        text = _replaced(piece, rb"\1,\2,\3")
        yield text or b"".join(
            f"{point['time']},{point['step']},{'' if point['value'] is None else point['value']}\n".encode()
            for point in _points(piece)
        )


def _replaced(piece: bytes, template: bytes) -> bytes | None:
    """Return the lines in the form of `template`, or None if a line does not match `_LINE`."""
    text, count = _LINE.subn(template, piece)
    return text if count == piece.count(b"\n") else None


def _points(piece: bytes) -> Iterator[dict[str, Any]]:
    for point in parse_points(piece.splitlines()):
        yield {"time": point.time, "step": point.step, "value": point.value if math.isfinite(point.value) else None}
