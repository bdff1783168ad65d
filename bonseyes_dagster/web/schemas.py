"""The JSON Schemas of everything that goes over the wire, as every service's OpenAPI document has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bonseyes_dagster import errors
from bonseyes_dagster.formats.json_schema import relocate
from bonseyes_dagster.model import NOT_SELECTED, PARAMETER_TYPES, TERMINAL_PHASES, Parameter, ToolDescription
from bonseyes_dagster.urls import Collection

__all__ = ["NAME", "SCHEMAS", "creation_schemas", "ref", "run_status", "wire_errors"]

# urls.NAME_PATTERN and its rule against `..` in one pattern without look-ahead, which not every client can read
NAME: dict[str, Any] = {"type": "string", "pattern": r"^[A-Za-z0-9](\.?[A-Za-z0-9_-])*\.?$", "maxLength": 128}
_DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_SIZE = {"type": "integer", "minimum": 0}
_INTEGER_LIMIT = 2**63 - 1
_TIME = {"type": "string", "format": "date-time"}
_PHASES = ["queued", "running", *sorted(TERMINAL_PHASES)]


def ref(name: str) -> dict[str, Any]:
    """Refer to the schema `name`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [dict(schema), {"type": "null"}]}


def _object(properties: Mapping[str, Any], *optional: str, is_open: bool = False) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": dict(properties),
        "required": required,
        "additionalProperties": is_open,
    }


def wire_errors() -> Iterator[type[errors.BonseyesError]]:
    """Yield the errors that go over the wire, by status."""
    found = [getattr(errors, name) for name in errors.__all__]
    classes = [cls for cls in found if isinstance(cls, type) and issubclass(cls, errors.BonseyesError)]
    yield from sorted((cls for cls in classes if cls.http_status != 500), key=lambda cls: (cls.http_status, cls.code))
    yield errors.BonseyesError


_progress = _object(
    {
        "done": _nullable({"type": "number"}),
        "total": _nullable({"type": "number"}),
        "unit": _nullable({"type": "string"}),
        "message": _nullable({"type": "string"}),
    }
)

_status = _object(
    {
        "result": {"type": "string", "enum": ["completed", "failed", "in-progress"]},
        "name": NAME,
        "phase": {"type": "string", "enum": _PHASES},
        "reason": _nullable({"type": "string"}),
        "position": _nullable({"type": "integer", "description": "place in the queue, 1 is next; only when queued"}),
        "progress": ref("Progress"),
        "created": _nullable(_TIME),
        "started": _nullable(_TIME),
        "finished": _nullable(_TIME),
        "size": _nullable(_SIZE),
        "digest": _nullable(_DIGEST),
        "reused_from": _nullable({"type": "string"}),
        "code_changed": {"type": "boolean", "description": "made while the tool's code was not that of its version"},
    }
)

_step = _object(
    {
        "name": {"type": "string"},
        "container": {"type": "string"},
        "artifact": {"type": "string", "description": "empty when the step is not selected"},
        "phase": {"type": "string", "enum": [*_PHASES, NOT_SELECTED]},
        "progress": ref("Progress"),
    }
)

_deleted = _object(
    {
        "result": {"type": "string", "const": "success"},
        "kept": {
            "type": "array",
            "items": {"type": "string"},
            "description": "URLs of the artifacts that the run made and that stay",
        },
    }
)

_parameter = _object(
    {
        "type": {"type": "string", "enum": list(PARAMETER_TYPES)},
        "label": {"type": "string"},
        "description": {"type": "string"},
        "required": {"type": "boolean"},
        "default": {},
        "choices": {"type": "array", "items": {"type": "string"}},
        "artifact-type": {"type": "string"},
        "minimum": {"type": "number"},
        "maximum": {"type": "number"},
        "pattern": {"type": "string"},
        "schema": {"type": "object"},
    },
    *("choices", "artifact-type", "minimum", "maximum", "pattern", "schema"),
)

_description = _object(
    {
        "name": {"type": "string"},
        "description": {"type": "string"},
        "artifacts": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "parameters": {"type": "object", "additionalProperties": ref("Parameter")},
        "schema": {"type": "object"},
        "output_type": {"type": "string"},
        "version": {"type": "string"},
        "api_version": {"type": "string", "const": "1"},
        "code_changed": {"type": "boolean", "description": "the files are not those of the version any more"},
        "dagster": _object({"job": {"type": "string"}, "url": {"type": "string"}}, is_open=True),
    },
    *("code_changed", "dagster"),
)

_error = _object(
    {
        "error": _object(
            {
                "code": {"type": "string", "enum": sorted({cls.code for cls in wire_errors()})},
                "message": {"type": "string"},
                "detail": {},
                "request_id": _nullable({"type": "string"}),
            }
        )
    }
)

SCHEMAS: dict[str, Any] = {
    "Change": _object({"name": NAME}),
    "Created": _object({"result": {"type": "string", "const": "success"}, "name": NAME, "url": {"type": "string"}}),
    "Description": _description,
    "Error": _error,
    "File": _object({"path": {"type": "string"}, "size": _SIZE, "sha256": _DIGEST}),
    "Info": _object(
        {
            "status": ref("Status"),
            "parameters": {"type": "object"},
            "digest": _nullable(_DIGEST),
            "size": _nullable(_SIZE),
            "provenance": {"type": ["object", "null"]},
            "id": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "of a tool's artifact alone"},
            "idempotency_key": _nullable(
                {"type": "string", "description": "of the request that made a tool's artifact, until it is renamed"}
            ),
        },
        "id",
        "idempotency_key",
        is_open=True,
    ),
    "Parameter": _parameter,
    "Point": _object({"time": {"type": "number"}, "step": {"type": "integer"}, "value": _nullable({"type": "number"})}),
    "Progress": _progress,
    "Ready": _object(
        {
            "status": {"type": "string", "const": "ready"},
            "notices": {"type": "array", "items": {"type": "string"}},
        },
        "notices",
    ),
    "Status": _status,
    "Success": _object({"result": {"type": "string", "const": "success"}}),
}


def run_status() -> dict[str, Any]:
    """Return the schemas by which a pipeline's document differs: its status tells of steps."""
    status = {
        **{key: value for key, value in _status["properties"].items() if key != "code_changed"},
        "steps": {"type": "array", "items": ref("Step")},
        "run_id": _nullable({"type": "string"}),
        "dagster_url": _nullable({"type": "string"}),
    }
    return {"Status": _object(status), "Step": _step, "Deleted": _deleted}


def creation_schemas(
    description: ToolDescription, kind: Collection, *, name_length: int = NAME["maxLength"]
) -> dict[str, Any]:
    """Return the bodies of a POST, exact for the parameters and the names of this tool or pipeline."""
    files = [parameter for parameter in description.parameters if parameter.type == "file"]
    shared: dict[str, Any] = {}
    values = {key: value for key, value in description.schema.items() if key != "$schema"} or {"type": "object"}
    if "properties" in values:
        free = {parameter.name for parameter in description.parameters if parameter.type == "json"}
        shared = {f"Parameter.{key}": value for key, value in values["properties"].items() if key in free}
        shared = {key: relocate(value, ref(key)["$ref"]) for key, value in shared.items()}
        exact = {
            key: ref(f"Parameter.{key}") if key in free else _exact(value)
            for key, value in values["properties"].items()
        }
        values = {**values, "properties": exact}
    name = {**NAME, "maxLength": name_length}
    # a run without a name, which a form sends as an empty one, gets a good one
    name = {"anyOf": [name, {"type": "string", "maxLength": 0}]} if kind == "runs" else name
    optional = {"name"} if kind == "runs" else set()
    return shared | {
        "CreateByJson": _object({"name": name, "parameters": values}, *optional, *_optional(values, "parameters")),
        "CreateByForm": _object(
            {"name": name, "data": _data(values, files), **{file.name: _part(file) for file in files}},
            *optional,
            *_optional(_data(values, files), "data"),
            *(file.name for file in files if not file.required),
        ),
    }


def _exact(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a parameter's schema what holds for every value of its type: no NUL, no more than 64 bits."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_exact(entry) for entry in schema["anyOf"]]}
    if schema.get("type") == "string" and "enum" not in schema:
        return {"pattern": r"^[^\x00]*$", **schema}
    if schema.get("type") == "integer":
        return {"minimum": -_INTEGER_LIMIT, "maximum": _INTEGER_LIMIT, **schema}
    return dict(schema)


def _optional(values: Mapping[str, Any], key: str) -> set[str]:
    return set() if values.get("required") else {key}


def _data(values: Mapping[str, Any], files: list[Parameter]) -> dict[str, Any]:
    """Return the schema of `data` in a form whose files come as parts."""
    names = {file.name for file in files}
    properties = {key: value for key, value in values.get("properties", {}).items() if key not in names}
    required = [key for key in values.get("required", ()) if key not in names]
    return {**values, "properties": properties, "required": required}


def _part(file: Parameter) -> dict[str, Any]:
    return {"type": "string", "format": "binary", "title": file.label, "description": file.description}
