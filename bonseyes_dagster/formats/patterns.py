"""Match regular expressions of tools and users in linear time, with RE2.

Parameters, descriptions and TensorBoard use it. Python's `re` is not safe here: with a hostile pattern, each further
character of a text doubles the time. The JSON Schema library uses `re`, so this module replaces its pattern keywords.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

import jsonschema

__all__ = ["SchemaValidator", "check_patterns", "compile_pattern", "is_match"]

_LENGTH_LIMIT = 10_000
_SHOWN_CHARACTERS = 128
_HINT = (
    "RE2's syntax has no look-around, back-references, possessive quantifiers or \\Z, and repeats 1000 times at most"
)


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Any:
    """Return the compiled pattern; raise ValueError for a pattern that is not in RE2's syntax."""
    import re2  # not at the top: most processes of a tool never match, and each fork would copy its memory map

    if len(pattern) > _LENGTH_LIMIT:
        raise ValueError(f"it has {len(pattern)} characters; the limit is {_LENGTH_LIMIT}")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a surrogate pair") from error
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"{reason} ({_HINT})") from error


def is_match(pattern: str, text: str) -> bool:
    """Tell whether some part of `text` matches, in time linear in its length."""
    return compile_pattern(pattern).search(text.encode(errors="replace").decode()) is not None


def check_patterns(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each part of a JSON Schema that RE2 cannot check in linear time."""
    keywords = set[str]()
    for part in _parts(schema):
        keywords.update(part)
        named = part.get("patternProperties")
        for pattern in [part.get("pattern"), *(named if isinstance(named, Mapping) else ())]:
            if isinstance(pattern, str):
                try:
                    compile_pattern(pattern)
                except ValueError as error:
                    yield f"the pattern {pattern[:80]!r} is not a regular expression: {error}"
        if part is not schema and isinstance(part.get("$schema"), str):
            yield "'$schema' is allowed at the top only"
    # For this keyword, the library matches patternProperties with `re`.
    if {"unevaluatedProperties", "patternProperties"} <= keywords:
        yield "'unevaluatedProperties' is not allowed together with 'patternProperties'; use 'additionalProperties'"


def _parts(schema: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(schema, Mapping):
        yield schema
        schema = list(schema.values())
    for entry in schema if isinstance(schema, list) else ():
        yield from _parts(entry)


def _pattern(_: Any, pattern: str, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(value, str) and not is_match(pattern, value):
        yield jsonschema.ValidationError(f"{value[:_SHOWN_CHARACTERS]!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, named: Any, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    for pattern, subschema in named.items() if isinstance(value, dict) else ():
        for key, entry in value.items():
            if is_match(pattern, key):
                yield from validator.descend(entry, subschema, path=key, schema_path=pattern)


def _additional_properties(validator: Any, extra: Any, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if not isinstance(value, dict):
        return
    named = schema.get("patternProperties", {})
    known = schema.get("properties", {})
    for key, entry in value.items():
        if key in known or any(is_match(pattern, key) for pattern in named):
            continue
        if extra is False:
            yield jsonschema.ValidationError(f"{key[:_SHOWN_CHARACTERS]!r} is not one of its properties")
        else:
            yield from validator.descend(entry, extra, path=key)


SchemaValidator = cast(
    type[jsonschema.Draft202012Validator],
    jsonschema.validators.extend(  # type: ignore[no-untyped-call]  # its stubs have no types for it
        jsonschema.Draft202012Validator,
        {
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "additionalProperties": _additional_properties,
        },
    ),
)
"""A validator of JSON Schema 2020-12 that uses RE2. For a schema with `$schema`, the library uses its own validator."""
