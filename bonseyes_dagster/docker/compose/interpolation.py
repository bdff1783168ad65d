"""Variables in compose files and Dockerfiles: `$NAME`, `${NAME:-default}` and the like, filled in as Docker does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bonseyes_dagster.errors import SettingsError

__all__ = ["interpolate"]

# Matches the innermost variable: the text after the operator holds no further variable.
_BRACED = re.compile(r"\$\{([A-Za-z_]\w*)(?:(:?[-+?])([^${}]*))?\}")
_BARE = re.compile(r"\$([A-Za-z_]\w*)")
# Marks a literal dollar sign: it is written `$$`, or it is part of a value.
_DOLLAR = "\0"


def interpolate(value: Any, environ: Mapping[str, str]) -> Any:
    """Return `value`, a string or a YAML document, with the variables in all strings filled in, except in keys."""
    if isinstance(value, str):
        return _fill(value, environ)
    if isinstance(value, Mapping):
        return {key: interpolate(each, environ) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolate(each, environ) for each in value]
    return value


def _fill(text: str, environ: Mapping[str, str]) -> str:
    if "$" not in text:
        return text
    whole, text = text, text.replace("$$", _DOLLAR)
    previous = None
    while previous != text:
        previous, text = text, _BRACED.sub(lambda found: _value(found, environ).replace("$", _DOLLAR), text)
    text = _BARE.sub(lambda found: environ.get(found[1], "").replace("$", _DOLLAR), text)
    if "$" in text:
        raise SettingsError(f"{whole!r} has a '$' that begins no variable; write '$$'.")
    return text.replace(_DOLLAR, "$")


def _value(found: re.Match[str], environ: Mapping[str, str]) -> str:
    name, operator, word = found[1], found[2] or "", found[3] or ""
    value = environ.get(name)
    is_there = bool(value) if operator.startswith(":") else value is not None
    match operator[-1:]:
        case "-":
            return value or "" if is_there else word
        case "+":
            return word if is_there else ""
        case "?" if not is_there:
            raise SettingsError(f"{name} must be set: {word or 'it has no default'}.")
        case _:
            return value or ""
