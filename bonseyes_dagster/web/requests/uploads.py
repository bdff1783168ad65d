"""Reads the body of a POST, and streams its files to disk meanwhile; reads the new name in the body of a PATCH."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from flask import request
from werkzeug.http import parse_options_header

from bonseyes_dagster.errors import InvalidError, TooLargeError, UnsupportedMediaError
from bonseyes_dagster.urls import is_name
from bonseyes_dagster.web.backend import Draft
from bonseyes_dagster.web.connection import Body
from bonseyes_dagster.web.requests.json_text import decode, parse_json
from bonseyes_dagster.web.requests.multipart import Part, read_parts
from bonseyes_dagster.web.uploads import safe_file_name

__all__ = ["read_creation", "read_new_name"]

# A JSON body, or `name` and `data` of a form, are held in memory.
_TEXT_LIMIT_BYTES = 1 << 24
# The most keys that an error names.
_SHOWN_KEYS = 20
_SHOWN_CHARACTERS = 128
_NAME_RULE = "must have 1 to 128 letters, digits, `.`, `_` or `-`, begin with a letter or digit, and have no `..`."


def read_creation(body: Body, draft: Draft, *, is_name_optional: bool) -> tuple[str, Mapping[str, Any]]:
    """Read the body of a creation; return its name ("" if optional and absent) and its parameters.

    Uploaded files go to `draft` as they come. Raises UnsupportedMediaError, BadRequestError when the framing or the
    JSON is malformed, InvalidError when the name or the parameters are wrong.
    """
    mimetype, options = parse_options_header(request.headers.get("Content-Type", ""))
    if mimetype == "multipart/form-data":
        fields = _read_form(body, draft, options.get("boundary", ""))
        parameters = parse_json(fields["data"], "the field `data`") if "data" in fields else {}
        name: Any = decode(fields.get("name", b""), "the field `name`")
        where = "data"
    elif mimetype == "application/json":
        name, parameters = _read_json(body)
        where = "parameters"
    else:
        raise UnsupportedMediaError(
            f"Send multipart/form-data or application/json, not {mimetype[:80] or 'a body without Content-Type'}."
        )
    return _checked(name, parameters, where, is_name_optional=is_name_optional)


def read_new_name(body: Body) -> str:
    """Read the body of a change, which is `{"name": NEW}`.

    Raises UnsupportedMediaError, BadRequestError when the JSON is malformed, InvalidError for an invalid name.
    """
    mimetype, _ = parse_options_header(request.headers.get("Content-Type", ""))
    if mimetype != "application/json":
        raise UnsupportedMediaError(f"Send application/json, not {mimetype[:80] or 'a body without Content-Type'}.")
    name = _read_object(body, ("name",), '{"name": ...}').get("name")
    if not isinstance(name, str) or not is_name(name):
        raise InvalidError(f"The name {_NAME_RULE}", detail={"name": f"The name {_NAME_RULE}"})
    return name


def _checked(name: Any, parameters: Any, where: str, *, is_name_optional: bool) -> tuple[str, Mapping[str, Any]]:
    wrong: dict[str, str] = {}
    if not isinstance(name, str) or not (is_name(name) or (is_name_optional and name == "")):
        wrong["name"] = f"The name {_NAME_RULE}"
    if not isinstance(parameters, dict):
        wrong[where] = f"`{where}` must be a JSON object of parameters."
    if wrong:
        raise InvalidError(" ".join(wrong.values()), detail=wrong)
    return name, parameters


def _read_json(body: Body) -> tuple[Any, Any]:
    content = _read_object(body, ("name", "parameters"), '{"name": ..., "parameters": {}}')
    return content.get("name", ""), content.get("parameters", {})


def _read_object(body: Body, keys: tuple[str, ...], example: str) -> dict[str, Any]:
    content = parse_json(_read_text(iter(body.read, b"")), "the body")
    if not isinstance(content, dict):
        raise InvalidError(
            "The body must be a JSON object.", detail={"body": f"It must be an object such as {example}."}
        )
    unknown = [key[:_SHOWN_CHARACTERS] for key in islice((key for key in content if key not in keys), _SHOWN_KEYS)]
    if unknown:
        known = " and ".join(f"`{key}`" for key in keys)
        others = f" and {count} more" if (count := len(content.keys() - keys) - len(unknown)) else ""
        raise InvalidError(
            f"The body has unknown keys: {', '.join(unknown)}{others}; it may have {known}.",
            detail=dict.fromkeys(unknown, f"The body may only have {known}."),
        )
    return content


def _read_text(pieces: Iterable[bytes | memoryview]) -> bytes:
    text = bytearray()
    for piece in pieces:
        text += piece
        if len(text) > _TEXT_LIMIT_BYTES:
            raise TooLargeError(
                f"JSON and form fields may have {_TEXT_LIMIT_BYTES} bytes; send larger values as a file part.",
                detail={"limit_bytes": _TEXT_LIMIT_BYTES},
            )
    return bytes(text)


def _read_form(body: Body, draft: Draft, boundary: str) -> dict[str, bytes]:
    """Return the text of `name` and `data`; every other part is a file for the draft."""
    texts: dict[str, bytes] = {}
    files: set[str] = set()
    for part in read_parts(body.read, boundary):
        if not is_name(part.name):
            wrong = {part.name[:128] or "part": f"The name of a part {_NAME_RULE}"}
            raise InvalidError("The name of a part must be a valid name of a parameter.", detail=wrong)
        if part.name in texts or part.name in files:
            raise InvalidError(
                f"The part {part.name!r} is given twice; give it once.", detail={part.name: "It is given twice."}
            )
        if part.name in ("name", "data"):
            texts[part.name] = _read_text(part.content)
        elif _save(part, draft):
            files.add(part.name)
    return texts


def _save(part: Part, draft: Draft) -> bool:
    """Stream a part to disk; return False for an empty file input of a browser's form."""
    first = next(part.content, None)
    if first is None and part.filename == "":
        return False
    with draft.open(part.name, safe_file_name(part.filename or "") or part.name) as file:
        if first is not None:
            file.write(first)
        for data in part.content:
            file.write(data)
    return True
