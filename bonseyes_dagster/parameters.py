"""Parameters: their JSON Schema, and the check of their values at every POST and every launch."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from bonseyes_dagster.errors import InvalidError
from bonseyes_dagster.formats.json_schema import DIALECT, embed, find_error
from bonseyes_dagster.formats.nesting import VALUE_DEPTH_LIMIT, depth_of
from bonseyes_dagster.model import Parameter

__all__ = ["check_parameters", "check_value", "parameter_schema", "parameters_schema"]

_INTEGER_LIMIT = 2**63 - 1
# How much of a request an error shows: the answer must stay small, however wrong the request is.
_SHOWN_UNKNOWN = 20
_SHOWN_NAME_CHARACTERS = 128
_SHOWN_CHARACTERS = 1000


def parameter_schema(parameter: Parameter) -> dict[str, Any]:
    """Return the JSON Schema of one parameter's value in `data`."""
    body: dict[str, Any]
    match parameter.type:
        case "choice":
            body = {"type": "string", "enum": list(parameter.choices)}
        case "json":
            # A schema with `$schema` makes jsonschema use its own validator, which matches patterns with `re`.
            own = {key: value for key, value in (parameter.schema or {}).items() if key != "$schema"}
            body = embed(own, parameter.name)
        case "file" | "url":
            body = {"type": "string", "format": "uri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/]"}
        case "artifact":
            name = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
            body = {"type": "string", "pattern": f"^({name}/{name}|[Hh][Tt][Tt][Pp][Ss]?://[^/]+/.+)$"}
        case _:
            body = {"type": parameter.type}
            for key in ("minimum", "maximum", "pattern"):
                if getattr(parameter, key) is not None:
                    body[key] = getattr(parameter, key)
    if not parameter.required and parameter.default is None and body:
        body = {"anyOf": [body, {"type": "null"}]}
    if parameter.label:
        body["title"] = parameter.label
    if parameter.description:
        body["description"] = parameter.description
    if not parameter.required:
        body["default"] = parameter.default
    return body


def parameters_schema(parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Return the JSON Schema 2020-12 of a tool's parameters; an uploaded part counts as its `file` parameter."""
    parameters = tuple(parameters)
    return {
        "$schema": DIALECT,
        "type": "object",
        "properties": {parameter.name: parameter_schema(parameter) for parameter in parameters},
        "required": [parameter.name for parameter in parameters if parameter.required],
        "additionalProperties": False,
    }


def check_parameters(
    parameters: Iterable[Parameter], values: Mapping[str, Any], *, files: Collection[str] = ()
) -> dict[str, Any]:
    """Return `values` with defaults filled in; raise InvalidError that names every bad parameter.

    `files` are the names of the uploaded parts. Each is the value of a `file` parameter and is not in the result.
    """
    known = {parameter.name: parameter for parameter in parameters}
    unknown = [name for name in [*values, *files] if name not in known]
    no_such = f"It is unknown; the parameters are: {', '.join(known)[:_SHOWN_CHARACTERS] or 'none'}."
    wrong: dict[str, str] = {name[:_SHOWN_NAME_CHARACTERS]: no_such for name in unknown[:_SHOWN_UNKNOWN]}
    checked: dict[str, Any] = {}
    for name, parameter in known.items():
        if name in files:
            problem = _check_upload(parameter, name in values)
        elif name in values:
            checked[name] = _normalised(parameter, values[name])
            problem = check_value(parameter, checked[name])
        else:
            checked[name] = parameter.default
            problem = "It is required." if parameter.required else None
        if problem:
            wrong[name] = problem
    if wrong:
        message = "; ".join(f"{name!r}: {sentence}" for name, sentence in wrong.items())
        if len(unknown) > _SHOWN_UNKNOWN:
            message += f"; and {len(unknown) - _SHOWN_UNKNOWN} more unknown names"
        raise InvalidError(f"Wrong parameters: {message}", detail=wrong)
    return checked


def _check_upload(parameter: Parameter, is_given_twice: bool) -> str | None:
    if parameter.type != "file":
        return f"It is of type {parameter.type}, so it belongs in `data`, not in a file part."
    return "It is given twice: as an uploaded part and in `data`." if is_given_twice else None


def _normalised(parameter: Parameter, value: Any) -> Any:
    """Return `value` with the Python type of the parameter: in JSON, 3.0 is an integer and 1 is a number."""
    if isinstance(value, float) and parameter.type == "integer" and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and parameter.type == "number":
        return float(value) if abs(value) <= _INTEGER_LIMIT else value
    return value


def check_value(parameter: Parameter, value: Any) -> str | None:
    """Return a sentence about the mistake in a value, or None for a valid value."""
    if isinstance(value, float) and not math.isfinite(value):
        return "It must be a finite number."
    if isinstance(value, int) and abs(value) > _INTEGER_LIMIT:
        return "It must fit in 64 bits."
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError):
        return "It must be JSON in valid UTF-8, with finite numbers only, and not nested too deep."
    if (depth := depth_of(text)) > VALUE_DEPTH_LIMIT:
        return f"It is nested {depth} levels deep; the limit is {VALUE_DEPTH_LIMIT}."
    if parameter.type != "json" and b"\\u0000" in text:
        return "It must not hold a NUL character."
    failure = find_error(parameter_schema(parameter), value)
    return failure and (_sentence(parameter, value) or f"{failure}.")


def _sentence(parameter: Parameter, value: Any) -> str | None:
    """Return a sentence about the right value; None where the message of the JSON Schema library is better."""
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    match parameter.type:
        case "choice":
            return f"It must be one of {', '.join(parameter.choices)}, not {shown}."
        case "artifact":
            return f"It must be an artifact's URL (http://CONTAINER/artifacts/NAME) or CONTAINER/NAME, not {shown}."
        case "file":
            return f"It must be an uploaded part, or an http or https URL, not {shown}."
        case "url":
            return f"It must be an http or https URL, not {shown}."
        case "string" if isinstance(value, str):
            return f"It must match {parameter.pattern}, not {shown}."
        case "integer" | "number" if isinstance(value, int | float) and not isinstance(value, bool):
            return f"It must be {_bounds(parameter)}, not {shown}."
        case "json":
            return None
        case _:
            return f"It must be of type {parameter.type}, not {shown}."


def _bounds(parameter: Parameter) -> str:
    kind = "an integer" if parameter.type == "integer" else "a number"
    bounds = []
    if parameter.minimum is not None:
        bounds.append(f"at least {parameter.minimum}")
    if parameter.maximum is not None:
        bounds.append(f"at most {parameter.maximum}")
    return " ".join([kind, " and ".join(bounds)]).strip()
