"""Check, embed and apply the JSON Schemas of `json` parameters.

Each embedded schema is a separate resource, so `#` in a `$ref` means its own root. `description.py` refuses unusable
schemas when it loads a tool. `parameters.py` embeds and applies the schemas.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import jsonschema
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
from referencing import Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from bonseyes_dagster.formats.patterns import SchemaValidator

__all__ = ["DIALECT", "check_schema", "embed", "find_error", "identities", "relocate"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCES = ("$ref", "$dynamicRef")
# Keywords whose meaning depends on the resource around them.
_OWN_KEYWORDS = {*_REFERENCES, "$anchor", "$dynamicAnchor"}
# A value with many parts can have a failure in each part.
_MOST_ERRORS = 100
_PREFIX = "urn:bonseyes:parameter:"
# A schema that refers to itself endlessly does so for at least one of these values.
_PROBES: tuple[Any, ...] = (None, False, 0, "", [], {})


def embed(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the schema for use inside another one; add an `$id` if it refers to itself and has no `$id`."""
    if "$id" in schema or not _has_own_keywords(schema):
        return dict(schema)
    return {"$id": f"{_PREFIX}{name}", **schema}


def relocate(schema: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return an embedded schema for a `place` (`#/a/b`) in an OpenAPI document, whose readers ignore `$id`.

    The references `#` and `#/...` become references from the root of the document. A schema with other references
    keeps its `$id`, for the readers that know `$id`.
    """
    if _is_embedded(schema):
        return _moved(schema, place)
    branches = schema.get("anyOf", ())
    if not any(map(_is_embedded, branches)):
        return dict(schema)
    moved = [
        _moved(branch, f"{place}/anyOf/{index}") if _is_embedded(branch) else branch
        for index, branch in enumerate(branches)
    ]
    return {**schema, "anyOf": moved}


def _is_embedded(schema: object) -> bool:
    return isinstance(schema, Mapping) and str(schema.get("$id", "")).startswith(_PREFIX)


def _moved(schema: Mapping[str, Any], place: str) -> dict[str, Any]:
    moved = copy.deepcopy({key: value for key, value in schema.items() if key != "$id"})
    parts = list(_reachable(moved))
    if any(map(_is_bound, parts)):
        return dict(schema)
    for part in parts:
        if "$ref" in part:
            part["$ref"] = place + part["$ref"].removeprefix("#")
    return moved


def find_error(schema: Mapping[str, Any], value: Any) -> str | None:
    """Return the message of the most relevant failure of a value, or None when the value is valid."""
    try:
        errors = islice(_validator(schema).iter_errors(value), _MOST_ERRORS)
        failure = jsonschema.exceptions.best_match(errors)
    except RecursionError:
        return "It is nested too deep to be checked"
    return failure.message[:300] if failure else None


def check_schema(schema: object) -> Iterator[str]:
    """Yield the mistakes that make a parameter's schema unusable: in its form, its dialect or its references."""
    if not isinstance(schema, dict):
        yield "'schema' must be a mapping"
        return
    try:
        problems = list(_problems(schema))
    except RecursionError:
        problems = ["'schema' is nested too deep"]
    except ValueError as error:  # from urllib, for a text that is not a URI
        problems = [f"'schema' has an '$id' or a '$ref' that is not a URI: {error}"]
    yield from problems


def identities(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield every `$id` in the schema."""
    for resource in _subschemas(DRAFT202012.create_resource(schema)):
        if isinstance(resource.contents, dict) and "$id" in resource.contents:
            yield resource.contents["$id"]


def _problems(schema: Mapping[str, Any]) -> Iterator[str]:
    problem = _form_problem(schema)
    if problem:
        yield f"'schema' is not a JSON Schema: {problem}"
        return
    wrong = list(_dialect_problems(schema)) or list(dict.fromkeys(_reference_problems(schema)))
    yield from wrong
    if not wrong and _is_endless(schema):
        yield "'schema' refers to itself endlessly"


def _form_problem(schema: Any) -> str | None:
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        return f"{error.message[:300]} (at {error.json_path})"
    return None


def _dialect_problems(schema: Mapping[str, Any]) -> Iterator[str]:
    for resource in _subschemas(DRAFT202012.create_resource(schema)):
        dialect = resource.contents.get("$schema", DIALECT) if isinstance(resource.contents, dict) else DIALECT
        if dialect.removesuffix("#") != DIALECT:
            yield f"'schema' has the '$schema' {dialect!r}; it must be {DIALECT!r}"


def _reference_problems(schema: Mapping[str, Any]) -> Iterator[str]:
    """Follow every reference, also in the schemas that references lead to."""
    root = DRAFT202012.create_resource(schema)
    waiting = [(root, REGISTRY.resolver_with_root(root))]
    seen: set[int] = set()
    while waiting:
        resource, resolver = waiting.pop()
        if id(resource.contents) in seen or not isinstance(resource.contents, dict):
            continue
        seen.add(id(resource.contents))
        waiting += [(each, resolver.in_subresource(each)) for each in resource.subresources()]
        for reference in (resource.contents[key] for key in _REFERENCES if key in resource.contents):
            try:
                found = resolver.lookup(reference)
            except Unresolvable:
                yield f"'schema' refers to {reference!r}, which is not in it; other documents are not allowed"
                continue
            problem = _form_problem(found.contents)
            if problem:
                yield f"'schema' refers to {reference!r}, which is not a JSON Schema: {problem}"
            else:
                waiting.append((DRAFT202012.create_resource(found.contents), found.resolver))


def _reachable(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schema and all schemas in it, also those that only a `#/...` reference reaches."""
    resolver = REGISTRY.resolver_with_root(DRAFT202012.create_resource(schema))
    waiting: list[Any] = [schema]
    seen: set[int] = set()
    while waiting:
        contents = waiting.pop()
        if id(contents) in seen or not isinstance(contents, dict):
            continue
        seen.add(id(contents))
        yield contents
        waiting += [each.contents for each in DRAFT202012.create_resource(contents).subresources()]
        if str(contents.get("$ref", "")).startswith("#") and not _is_bound(contents):
            waiting.append(resolver.lookup(contents["$ref"]).contents)


def _is_bound(schema: Mapping[str, Any]) -> bool:
    """Tell whether the schema has keywords that a JSON pointer in another document cannot replace."""
    is_pointer = f"{schema.get('$ref', '#')}/".startswith("#/")
    return not is_pointer or not {"$id", "$anchor", "$dynamicAnchor", "$dynamicRef"}.isdisjoint(schema)


def _subschemas(resource: Resource[Any]) -> Iterator[Resource[Any]]:
    yield resource
    for each in resource.subresources():
        yield from _subschemas(each)


def _is_endless(schema: Mapping[str, Any]) -> bool:
    try:
        for probe in _PROBES:
            list(_validator(schema).iter_errors(probe))
    except RecursionError:
        return True
    return False


def _validator(schema: Mapping[str, Any]) -> jsonschema.Draft202012Validator:
    own = {key: value for key, value in schema.items() if key != "$schema"}
    # An explicit registry: by default, jsonschema fetches the URL of a `$ref`.
    return SchemaValidator(own, registry=REGISTRY)


def _has_own_keywords(value: object) -> bool:
    if isinstance(value, Mapping):
        return not _OWN_KEYWORDS.isdisjoint(value) or any(map(_has_own_keywords, value.values()))
    return isinstance(value, list) and any(map(_has_own_keywords, value))
