"""Convert the words after `-p` and `-f` to the parameters that the container describes; never send a wrong one."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bonseyes_dagster.errors import InvalidError
from bonseyes_dagster.formats.json_text import parse_json
from bonseyes_dagster.model import Parameter

__all__ = ["read_parameters"]

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def read_parameters(
    described: Sequence[Parameter], values: Sequence[str], files: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return (parameters, files) of `KEY=VALUE` and `PARAM=PATH` words; raise InvalidError with every wrong word."""
    by_name = {parameter.name: parameter for parameter in described}
    wrong: dict[str, str] = {}
    parameters = _read(values, "-p KEY=VALUE", by_name, _value, wrong)
    uploads = _read(files, "-f PARAM=PATH", by_name, _file, wrong)
    for name in parameters.keys() & uploads.keys():
        wrong[name] = "It is given with -p and with -f; use one of them."
    for parameter in described:
        is_given = parameter.name in parameters or parameter.name in uploads or parameter.name in wrong
        if parameter.required and not is_given:
            flag = "-f" if parameter.type == "file" else "-p"
            wrong[parameter.name] = f"It is required: {flag} {parameter.name}={parameter.type.upper()}."
    if wrong:
        raise InvalidError("These parameters are wrong; nothing was sent.", detail=wrong)
    return parameters, uploads


def _read(
    words: Sequence[str],
    form: str,
    by_name: Mapping[str, Parameter],
    convert: Callable[[Parameter, str], Any],
    wrong: dict[str, str],
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        parameter = by_name.get(key) or by_name.get(key.replace("_", "-"))
        if not equals or not key:
            wrong[word] = f"Write {form}."
        elif parameter is None:
            wrong[key] = _unknown(key, by_name)
        elif parameter.name in result:
            wrong[key] = "It is given twice; give it once."
        else:
            try:
                result[parameter.name] = convert(parameter, text)
            except ValueError as error:
                wrong[parameter.name] = str(error)
    return result


def _unknown(key: str, by_name: Mapping[str, Parameter]) -> str:
    near = difflib.get_close_matches(key, by_name, n=1)
    if near:
        return f"There is no such parameter; did you mean {near[0]!r}?"
    return f"There is no such parameter; the parameters are: {', '.join(by_name) or 'none'}."


def _file(parameter: Parameter, text: str) -> Path:
    if parameter.type != "file":
        raise ValueError(f"It is not a file but of type {parameter.type}: -p {parameter.name}=VALUE.")
    path = Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser() fails for an unknown user
    if not path.exists():
        raise ValueError(f"There is no file {text}.")
    if not path.is_file():
        raise ValueError(f"{text} is not a file.")
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"{text} cannot be read: {error.strerror}.") from error


def _value(parameter: Parameter, text: str) -> Any:
    if parameter.type == "file":
        if text.startswith(("http://", "https://")):
            return text
        raise ValueError(f"It is a file: -f {parameter.name}=PATH (or -p {parameter.name}=URL).")
    value = _PARSERS.get(parameter.type, str)(text)
    _check(parameter, value)
    return value


def _check(parameter: Parameter, value: Any) -> None:
    if parameter.choices and value not in parameter.choices:
        raise ValueError(f"It must be one of {', '.join(parameter.choices)}, not {value!r}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if parameter.minimum is not None and value < parameter.minimum:
            raise ValueError(f"It must be at least {parameter.minimum:g}, not {_shown(value)}.")
        if parameter.maximum is not None and value > parameter.maximum:
            raise ValueError(f"It must be at most {parameter.maximum:g}, not {_shown(value)}.")
    # The container checks the pattern. Here it would run in `re`, and a hostile pattern never ends there.


def _shown(number: float) -> str:
    text = f"{number:g}" if isinstance(number, float) else str(number)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"It must be an integer, not {text!r}.") from None


def _number(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"It must be a number, not {text!r}.") from None
    if not math.isfinite(value):
        raise ValueError(f"It must be a finite number, not {text!r}.")
    return value


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError(f"It must be true or false, not {text!r}.") from None


def _json(text: str) -> Any:
    """Parse JSON; with `@FILE`, parse the JSON in that file."""
    try:
        if text.startswith("@"):
            file = os.path.expanduser(text[1:])  # noqa: PTH111 - Path.expanduser() fails for an unknown user
            text = Path(file).read_text(encoding="utf-8")
        return parse_json(text)
    except OSError as error:
        raise ValueError(f"{text[1:]} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"It must be JSON (or @FILE with JSON in it): {str(error).rstrip('.')}.") from error


_PARSERS: dict[str, Callable[[str], Any]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "json": _json,
}
