"""Parse JSON of requests; refuse malformed or deeply nested JSON, and numbers and text that other programs refuse."""

from __future__ import annotations

import json
from typing import Any

from bonseyes_dagster.errors import BadRequestError
from bonseyes_dagster.formats import json_text
from bonseyes_dagster.formats.nesting import BODY_DEPTH_LIMIT, depth_of

__all__ = ["decode", "parse_json"]


def decode(data: bytes, what: str) -> str:
    """Return UTF-8 bytes as text; raise BadRequestError for other bytes. `what` names the data, as in `parse_json`."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _error(f"{what} is not UTF-8: {error.reason} at byte {error.start}.") from error


def parse_json(data: bytes, what: str) -> Any:
    """Return the value of a JSON text; raise BadRequestError with the reason.

    `what` names the text in the message, for example "the body".
    """
    text = decode(data, what)
    if (depth := depth_of(data)) > BODY_DEPTH_LIMIT:
        raise _error(f"{what} is nested {depth} levels deep; the limit is {BODY_DEPTH_LIMIT}.")
    try:
        content = json_text.parse_json(text)
        json.dumps(content, ensure_ascii=False).encode()  # raises ValueError for a lone surrogate
    except (ValueError, RecursionError) as error:
        raise _error(f"{what} is not well-formed JSON: {error}.") from error
    return content


def _error(sentence: str) -> BadRequestError:
    return BadRequestError(sentence[:1].upper() + sentence[1:])
