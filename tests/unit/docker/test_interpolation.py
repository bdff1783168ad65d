"""Variables are filled in as Docker fills them in."""

from __future__ import annotations

import pytest

from bonseyes_dagster.docker.compose.interpolation import interpolate
from bonseyes_dagster.errors import SettingsError

ENVIRON = {"SET": "value", "EMPTY": "", "PRICE": "$5 ${SET}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$SET/${SET}", "value/value"),
        ("[${NONE}]", "[]"),
        ("${NONE:-word} ${EMPTY:-word} ${SET:-word}", "word word value"),
        ("${NONE-word} [${EMPTY-word}] ${SET-word}", "word [] value"),
        ("[${NONE:+word}] [${EMPTY:+word}] ${SET:+word}", "[] [] word"),
        ("[${NONE+word}] ${EMPTY+word}", "[] word"),
        ("${NONE:-a${EMPTY:-b}c}", "abc"),
        ("${SET:?must be there}", "value"),
        ("cost: $$5, $${SET}, $$$SET", "cost: $5, ${SET}, $value"),
        ("${PRICE}", "$5 ${SET}"),
        ("http://${NONE:-127.0.0.1:8000}/x", "http://127.0.0.1:8000/x"),
    ],
)
def test_a_text(text: str, expected: str) -> None:
    """Each way to write a variable; what comes from a value is not looked at again."""
    assert interpolate(text, ENVIRON) == expected


def test_what_must_be_set_is_named() -> None:
    """With the file's own words for it."""
    with pytest.raises(SettingsError, match="NONE must be set: a port"):
        interpolate("${NONE:?a port}", ENVIRON)
    with pytest.raises(SettingsError, match="EMPTY must be set"):
        interpolate("${EMPTY:?}", ENVIRON)


def test_a_stray_dollar_is_refused() -> None:
    """As compose refuses it, instead of guessing."""
    with pytest.raises(SettingsError, match=r"\$\$"):
        interpolate("5$ or ${", ENVIRON)


def test_values_of_mappings_and_lists_are_filled_in() -> None:
    """Keys and other types are left alone."""
    assert interpolate({"$SET": ["$SET", 1, None, {"a": "$SET"}]}, ENVIRON) == {
        "$SET": ["value", 1, None, {"a": "value"}]
    }
