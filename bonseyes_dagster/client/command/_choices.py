"""Values from a fixed list. The error for any other value shows the list and suggests the nearest value."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import Any

import click

from bonseyes_dagster.errors import InvalidError

__all__ = ["Choice", "check_choice", "suggestion"]


class Choice(click.Choice[str]):
    """A choice that suggests a value when it refuses one."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return the sentence that refuses `value`."""
        return refusal(str(value), self.choices)


def check_choice(value: str, choices: Collection[str], what: str) -> None:
    """Raise InvalidError when `value` is not one of `choices`."""
    if value not in choices:
        raise InvalidError(f"{what}: {refusal(value, sorted(choices))}")


def refusal(value: str, choices: Sequence[str]) -> str:
    """Return the sentence that refuses `value`."""
    return f"{value!r} is not one of {', '.join(choices) or 'none'}.{suggestion(value, choices)}"


def suggestion(value: str, choices: Collection[str]) -> str:
    """Return ` Did you mean ...?`, or nothing when no choice is like `value`."""
    close = difflib.get_close_matches(value, choices, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
