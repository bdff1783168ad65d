"""The JSON that requests may contain."""

from __future__ import annotations

import json

import pytest

from bonseyes_dagster.errors import BadRequestError
from bonseyes_dagster.formats.nesting import depth_of
from bonseyes_dagster.web.requests.json_text import parse_json


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        (b"5", 0),
        (b"[]", 1),
        (b'{"a": [1, {"b": []}], "c": {}}', 4),
        (rb'"[[[["', 0),
        (rb'["\"[[[", {"a\\": "[\\\"]]]"}]', 2),
        (b"[" * 100_000, 100_000),
        (b"]]]", -1),
    ],
)
def test_depth_counts_brackets_outside_of_strings(text: bytes, depth: int) -> None:
    """Escaped quotes and backslashes do not end a string."""
    assert depth_of(text) == depth


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 101 + b"]" * 101, "nested 101 levels deep; the limit is 100"),
        (b'{"a":' * 980 + b"1" + b"}" * 980, "nested 980 levels deep"),
        (b"1" * 5000, "has 5000 digits; the limit is 4300"),
        (b"1e400", "is too large"),
        (b"[-1e999]", "is too large"),
        (b"NaN", "not a JSON number"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_unusable_json_is_a_bad_request(text: bytes, reason: str) -> None:
    """Each with a sentence about the reason."""
    with pytest.raises(BadRequestError, match=reason):
        parse_json(text, "the body")


def test_ordinary_json_is_accepted() -> None:
    """Numbers keep their types."""
    value = {"a": [1, 1.5, -2e3, 2**70, "[[", "\U0001f600"], "b": None}
    assert parse_json(json.dumps(value).encode(), "the body") == value
    assert parse_json(b"[" * 100 + b"]" * 100, "the body")
