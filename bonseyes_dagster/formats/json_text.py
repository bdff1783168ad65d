"""Read and write JSON as its standard defines it, without NaN and Infinity.

Python's `json` reads and writes these two numbers, but other readers refuse them. The rule, as in `docs/http_api.md`:
this project writes null for such a number, and refuses a document from outside that has one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["finite", "format_json", "parse_json"]

_DIGITS_LIMIT = 4300  # the limit of Python's int()


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; raise ValueError for NaN, Infinity and a number like 1e999."""
    return json.loads(text, parse_constant=_refuse, parse_float=_finite_float, parse_int=_integer)


def format_json(value: Any, **options: Any) -> str:
    """Return the value as JSON text, with null for each number that is not finite; `options` go to `json.dumps`."""
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
    raise ValueError(f"{text} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large; the limit is 1.7e308")
    return value


def _integer(text: str) -> int:
    if len(text) > _DIGITS_LIMIT:
        raise ValueError(f"a number has {len(text)} digits; the limit is {_DIGITS_LIMIT}")
    return int(text)
