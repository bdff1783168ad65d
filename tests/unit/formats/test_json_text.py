"""JSON as its standard defines it, read and written."""

from __future__ import annotations

import json

import pytest

from bonseyes_dagster.formats.json_text import format_json, parse_json


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", b"[-1e999]", "{", b"\xff"])
def test_text_that_is_not_json_is_refused(text: str | bytes) -> None:
    """With a ValueError, which every caller converts to its own error."""
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_standard_json_is_read() -> None:
    """Large integers and small floats, too."""
    assert parse_json(b'{"a": [1.5, 1e-999, 100000000000000000000, null]}') == {"a": [1.5, 0.0, 10**20, None]}


def test_numbers_that_json_lacks_are_written_as_null() -> None:
    """At any depth, with the options of `json.dumps`, and without changing the original value."""
    value = {"a": [float("nan"), 1.5, {"b": (float("inf"), -float("inf"))}], "é": 1}
    text = format_json(value, indent=2, ensure_ascii=False)
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [None, 1.5, {"b": [None, None]}], "é": 1}
    assert '  "é": 1' in text
    assert value["a"][1:] == [1.5, {"b": (float("inf"), -float("inf"))}]
