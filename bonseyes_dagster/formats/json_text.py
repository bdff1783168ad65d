"""JSON as its standard has it: Python's `json` also reads and writes NaN and Infinity, which no other reader takes.

The rule, as in `docs/http_api.md`: a document that is written has null for such a number; one that comes from outside
and has one is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["finite", "format_json", "parse_json"]

_DIGITS_LIMIT = 4300  # what Python converts


def parse_json(text: str | bytes) -> Any:
    """Return what the text holds; ValueError for NaN, Infinity, and a number as 1e999 that is too large for a float."""
    return json.loads(text, parse_constant=_refuse, parse_float=_finite_float, parse_int=_integer)


def format_json(value: Any, **options: Any) -> str:
    """Return the value as JSON text, with null for what is not a finite number; `options` are those of `json.dumps`."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(finite(value), allow_nan=False, **options)


def finite(value: Any) -> Any:
    """Return the value with None for each number in it that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large; 1.7e308 is the most")
    return value


def _integer(text: str) -> int:
    if len(text) > _DIGITS_LIMIT:
        raise ValueError(f"a number has {len(text)} digits; {_DIGITS_LIMIT} are the most")
    return int(text)
