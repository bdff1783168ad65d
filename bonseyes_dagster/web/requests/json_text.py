"""JSON that came from outside: well-formed, not too deep, with numbers and text that every program can hold."""

from __future__ import annotations

import json
from typing import Any

from bonseyes_dagster.errors import BadRequestError
from bonseyes_dagster.formats import json_text
from bonseyes_dagster.formats.nesting import BODY_DEPTH_LIMIT, depth_of

__all__ = ["decode", "parse_json"]


def decode(data: bytes, what: str) -> str:
    """Return UTF-8 bytes as text; raise BadRequestError for other bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError(f"{what} is not UTF-8: {error.reason} at byte {error.start}") from error


def parse_json(data: bytes, what: str) -> Any:
    """Return the value of a JSON text; raise BadRequestError with the reason. `what` names it: "the body"."""
    text = decode(data, what)
    if (depth := depth_of(data)) > BODY_DEPTH_LIMIT:
        raise BadRequestError(f"{what} is nested {depth} levels deep; the limit is {BODY_DEPTH_LIMIT}")
    try:
        content = json_text.parse_json(text)
        json.dumps(content, ensure_ascii=False).encode()  # a lone surrogate is no text that could be stored
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"{what} is not well-formed JSON: {error}") from error
    return content
