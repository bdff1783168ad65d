"""Turns parameters of `tool.yml` into fields of Dagster config, which the launchpad, the CLI and schedules show."""

import re
from typing import Any

import dagster

from bonseyes_dagster.model import Parameter

__all__ = ["config_field"]

_SCALARS: dict[str, Any] = {
    "string": dagster.String,
    "integer": dagster.Int,
    "number": dagster.Float,
    "boolean": dagster.Bool,
    "file": dagster.String,
    "url": dagster.String,
    "artifact": dagster.String,
    "json": dagster.Any,
}


def config_field(parameter: Parameter, owner: str) -> dagster.Field:
    """Return the config field of a parameter; `owner`, a container or job, makes the name of an enum unique."""
    kind = _enum(parameter, owner) if parameter.type == "choice" else _SCALARS[parameter.type]
    options: dict[str, Any] = {"description": _description(parameter), "is_required": parameter.required}
    if not parameter.required:
        # Dagster omits the key of a field without default. A default of None means the same to the tool.
        kind = kind if parameter.default is not None or parameter.type == "json" else dagster.Noneable(kind)
        options["default_value"] = parameter.default
    return dagster.Field(kind, **options)


def _enum(parameter: Parameter, owner: str) -> dagster.Enum:
    name = re.sub(r"[^A-Za-z0-9_]", "_", f"{owner}_{parameter.name}")
    return dagster.Enum(name, [dagster.EnumValue(choice) for choice in parameter.choices])


def _description(parameter: Parameter) -> str:
    what = {
        "file": "A path on the machine that runs the pipeline, or an http(s) URL.",
        "artifact": f"The URL of an artifact of type {parameter.artifact_type}.",
    }.get(parameter.type, "")
    bounds = [
        f"at least {parameter.minimum}" if parameter.minimum is not None else "",
        f"at most {parameter.maximum}" if parameter.maximum is not None else "",
    ]
    limits = " and ".join(filter(None, bounds))
    sentences = [parameter.description or parameter.label, what, f"It is {limits}." if limits else ""]
    return " ".join(filter(None, sentences))
