"""The OpenAPI 3.1 documents of services: YAML files beside the code, filled in with the parameters of a tool."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bonseyes_dagster.formats.json_schema import relocate
from bonseyes_dagster.model import API_VERSION, Parameter, ToolDescription
from bonseyes_dagster.urls import NAME_LENGTH, Collection, collection
from bonseyes_dagster.version import __version__

__all__ = ["merge_patch", "named_document", "read_document", "service_document"]

_ARTIFACTS = Path(__file__).with_name("openapi.yml")
_RUNS = Path(__file__).with_name("openapi_runs.yml")
_INTEGER_LIMIT = 2**63 - 1
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def read_document(file: Path) -> Mapping[str, Any]:
    """Return what a YAML file of this package holds; it is shared, so nobody may change it."""
    loaded: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), _LOADER)  # noqa: S506 - a safe loader
    return loaded


def merge_patch(document: Any, patch: Any) -> Any:
    """Return a document with a JSON merge patch (RFC 7396) applied: null removes a member, lists are replaced whole."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(document) if isinstance(document, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def named_document(file: Path, name: str) -> dict[str, Any]:
    """Return the document of a service that is the same in every project, but for the service's name."""
    document = read_document(file)
    return {**document, "info": {**document["info"], "title": name, "version": __version__}}


def service_document(
    description: ToolDescription, kind: Collection = "artifacts", *, name_length: int = NAME_LENGTH
) -> dict[str, Any]:
    """Return the document of a tool, or of a pipeline's runs; new names have `name_length` characters at most."""
    document = read_document(_ARTIFACTS)
    if kind == "runs":
        document = merge_patch(_with_runs(document), read_document(_RUNS))
    info = {
        "title": description.name,
        "description": description.description,
        "version": description.version or API_VERSION,
    }
    # Not by a merge patch: null is a value that the schemas of a tool may have.
    components = document["components"]
    schemas = {**components["schemas"], **_creation_schemas(description, kind, name_length)}
    return {**document, "info": info, "components": {**components, "schemas": schemas}}


def _with_runs(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with `/runs` in place of `/artifacts`, in paths and in the ids of operations."""
    paths: dict[str, Any] = {}
    for path, operations in document["paths"].items():
        if path.startswith(collection("artifacts")):
            path = collection("runs") + path.removeprefix(collection("artifacts"))
            operations = {
                method: {**each, "operationId": each["operationId"].replace("artifacts", "runs", 1)}
                for method, each in operations.items()
            }
        paths[path] = operations
    return {**document, "paths": paths}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _creation_schemas(description: ToolDescription, kind: Collection, name_length: int) -> dict[str, Any]:
    """Return the bodies of a POST, exact for the parameters and the names of this tool or pipeline."""
    files = [parameter for parameter in description.parameters if parameter.type == "file"]
    shared: dict[str, Any] = {}
    values = {key: value for key, value in description.schema.items() if key != "$schema"} or {"type": "object"}
    if "properties" in values:
        free = {parameter.name for parameter in description.parameters if parameter.type == "json"}
        shared = {f"Parameter.{key}": value for key, value in values["properties"].items() if key in free}
        shared = {key: relocate(value, _ref(key)["$ref"]) for key, value in shared.items()}
        exact = {
            key: _ref(f"Parameter.{key}") if key in free else _exact(value)
            for key, value in values["properties"].items()
        }
        values = {**values, "properties": exact}
    name = read_document(_ARTIFACTS)["components"]["schemas"]["Created"]["properties"]["name"]
    name = {**name, "maxLength": name_length}
    optional = set()
    if kind == "runs":
        # A run without a name, which a form sends as an empty one, gets a good one.
        name = {"anyOf": [name, {"type": "string", "maxLength": 0}]}
        optional = {"name"}
    in_form = _without_files(values, files)
    return shared | {
        "CreateByJson": _object({"name": name, "parameters": values}, optional | _optional(values, "parameters")),
        "CreateByForm": _object(
            {"name": name, "data": in_form, **{file.name: _part(file) for file in files}},
            optional | _optional(in_form, "data") | {file.name for file in files if not file.required},
        ),
    }


def _object(properties: Mapping[str, Any], optional: set[str]) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


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


def _without_files(values: Mapping[str, Any], files: list[Parameter]) -> dict[str, Any]:
    """Return the schema of `data` in a form, whose files are parts of their own."""
    names = {file.name for file in files}
    properties = {key: value for key, value in values.get("properties", {}).items() if key not in names}
    required = [key for key in values.get("required", ()) if key not in names]
    return {**values, "properties": properties, "required": required}


def _part(file: Parameter) -> dict[str, Any]:
    return {"type": "string", "format": "binary", "title": file.label, "description": file.description}
