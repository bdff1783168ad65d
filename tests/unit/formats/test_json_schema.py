"""Schemas of `json` parameters: which schemas are refused, and that `#` means the parameter's own schema."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from bonseyes_dagster.errors import InvalidError
from bonseyes_dagster.formats.json_schema import check_schema, find_error
from bonseyes_dagster.model import Parameter, ToolDescription
from bonseyes_dagster.parameters import check_parameters, parameters_schema
from bonseyes_dagster.web.openapi import service_document

BOXES = {
    "$defs": {"box": {"type": "array", "items": {"type": "number"}, "minItems": 4}},
    "type": "array",
    "items": {"$ref": "#/$defs/box"},
}
TREE = {"type": "object", "properties": {"left": {"$ref": "#"}}, "additionalProperties": False}
ANCHOR = {"$defs": {"size": {"$anchor": "size", "type": "integer"}}, "$ref": "#size"}
ENTRIES = {
    "boxes": {"type": "json", "schema": BOXES},
    "tree": {"type": "json", "schema": TREE, "required": True},
    "anchored": {"type": "json", "schema": ANCHOR, "default": 1, "label": "A size"},
    "other-anchor": {"type": "json", "schema": {"$defs": {"size": {"$anchor": "size"}}, "$ref": "#size"}},
}
PARAMETERS = tuple(Parameter.from_json(name, entry) for name, entry in ENTRIES.items())
RIGHT: list[dict[str, Any]] = [
    {"tree": {}},
    {"tree": {"left": {"left": {}}}, "boxes": [[1, 2, 3, 4]], "anchored": 2, "other-anchor": "x"},
]
WRONG: list[dict[str, Any]] = [
    {"tree": {}, "boxes": [[1, 2, 3]]},
    {"tree": {"left": {"right": {}}}},
    {"tree": {}, "anchored": "x"},
]


@pytest.mark.parametrize("values", RIGHT)
def test_valid_values_pass_both_checks(values: dict[str, Any]) -> None:
    """The check of a request and the combined schema of `GET /` agree."""
    check_parameters(PARAMETERS, values)
    assert jsonschema.Draft202012Validator(parameters_schema(PARAMETERS)).is_valid(values)


@pytest.mark.parametrize("values", WRONG)
def test_invalid_values_fail_both_checks(values: dict[str, Any]) -> None:
    """Both checks resolve `#` to the parameter's own schema."""
    with pytest.raises(InvalidError):
        check_parameters(PARAMETERS, values)
    assert not jsonschema.Draft202012Validator(parameters_schema(PARAMETERS)).is_valid(values)


def test_references_in_openapi_documents_resolve() -> None:
    """Readers of OpenAPI ignore `$id`, so references start at the document's root, and the schema appears only once."""
    parameters = PARAMETERS[:2]
    described = ToolDescription(
        name="t",
        description="d",
        parameters=parameters,
        output_type="com.x",
        version="1",
        schema=parameters_schema(parameters),
    )
    found = service_document(described)
    validate(found)
    schemas = found["components"]["schemas"]
    assert schemas["Parameter.boxes"]["anyOf"][0]["items"] == {
        "$ref": "#/components/schemas/Parameter.boxes/anyOf/0/$defs/box"
    }
    assert schemas["Parameter.tree"]["properties"]["left"] == {"$ref": "#/components/schemas/Parameter.tree"}
    properties = schemas["CreateByJson"]["properties"]["parameters"]["properties"]
    assert properties["boxes"] == {"$ref": "#/components/schemas/Parameter.boxes"}


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ([], "'schema' must be a mapping"),
        ({"type": "nothing"}, "'schema' is not a JSON Schema: 'nothing' is not valid"),
        ({"$ref": "#/$defs/box"}, "'schema' refers to '#/$defs/box', which is not in it"),
        ({"$ref": "#nowhere"}, "'schema' refers to '#nowhere', which is not in it"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, "other documents are not allowed"),
        ({"$ref": "#/x", "x": {"$ref": "#/y"}}, "'schema' refers to '#/y', which is not in it"),
        ({"$ref": "#/required", "required": ["a"]}, "'schema' refers to '#/required', which is not a JSON Schema"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "'schema' has the '$schema' 'http://json-schema"),
        ({"$defs": {"a": {"$schema": "urn:x"}}}, "'schema' has the '$schema' 'urn:x'"),
        ({"allOf": [{"$ref": "#"}]}, "'schema' refers to itself endlessly"),
        ({"$id": "http://[::", "$ref": "a"}, "'schema' has an '$id' or a '$ref' that is not a URI"),
    ],
)
def test_unusable_schemas_are_refused(schema: Any, sentence: str) -> None:
    """When the tool is loaded, not at the first use of the parameter."""
    (problem,) = check_schema(schema)
    assert sentence in problem


@pytest.mark.parametrize(
    "schema",
    [
        BOXES,
        TREE,
        ANCHOR,
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"enum": [{"$ref": "no reference"}]},
        {"$id": "https://x.invalid/a", "items": {"$ref": "a#/$defs/b"}, "$defs": {"b": {}}},
    ],
)
def test_usable_schemas_are_accepted(schema: dict[str, Any]) -> None:
    """With references inside the schema, by pointer, anchor or `$id`, and to JSON Schema's own schemas."""
    assert not list(check_schema(schema))


def test_a_value_nested_too_deep_gets_a_message() -> None:
    """A schema that refers to itself follows a value down; it must stop before Python's recursion limit."""
    value: list[Any] = []
    for _ in range(400):
        value = [value]
    assert find_error({"type": "array", "items": {"$ref": "#"}}, value) == "It is nested too deep to be checked"
