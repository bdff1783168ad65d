"""Variables in compose files are filled in as Docker does."""

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
def test_variables_in_a_text_are_filled_in(text: str, expected: str) -> None:
    """A `$` inside a value begins no further variable."""
    assert interpolate(text, ENVIRON) == expected


def test_error_of_a_required_variable_has_the_text_of_the_file() -> None:
    """The text after `:?` explains the variable to the user."""
    with pytest.raises(SettingsError, match="NONE must be set: a port"):
        interpolate("${NONE:?a port}", ENVIRON)
    with pytest.raises(SettingsError, match="EMPTY must be set"):
        interpolate("${EMPTY:?}", ENVIRON)


def test_stray_dollar_sign_is_refused() -> None:
    """Compose refuses it, too, instead of guessing."""
    with pytest.raises(SettingsError, match=r"\$\$"):
        interpolate("5$ or ${", ENVIRON)


def test_variables_in_mappings_and_lists_are_filled_in() -> None:
    """Keys and values of other types stay as they are."""
    assert interpolate({"$SET": ["$SET", 1, None, {"a": "$SET"}]}, ENVIRON) == {
        "$SET": ["value", 1, None, {"a": "value"}]
    }
