"""The way in: the body of a POST becomes a `Request`, its files streamed to the backend's disk on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from bonseyes_dagster.errors import BadRequestError, InvalidError, TooLargeError, UnsupportedMediaError
from bonseyes_dagster.urls import is_name
from bonseyes_dagster.web.backend import Draft
from bonseyes_dagster.web.connection import Body

__all__ = ["read_creation"]

# what is held in memory: a JSON body, or `name` and `data` of a form
_TEXT_LIMIT_BYTES = 1 << 24
_PARTS_LIMIT = 1000
_BOUNDARY_MAX = 70  # RFC 2046
_NAME_RULE = "must be 1 to 128 letters, digits, `.`, `_` or `-`, begin with a letter or digit, and hold no `..`"


def read_creation(body: Body, draft: Draft, *, is_name_optional: bool) -> tuple[str, Mapping[str, Any]]:
    """Read the body of a creation; return its name ("" if optional and absent) and its parameters.

    Uploaded files go to `draft` as they come. Raises UnsupportedMediaError, BadRequestError when the framing or the
    JSON is malformed, InvalidError when name or parameters are of the wrong shape.
    """
    mimetype, options = parse_options_header(request.headers.get("Content-Type", ""))
    if mimetype == "multipart/form-data":
        fields = _Form(body, draft, options.get("boundary", "")).read()
        parameters = _parse_json(fields["data"], "the field `data`") if "data" in fields else {}
        name: Any = _decode(fields.get("name", b""), "the field `name`")
        where = "data"
    elif mimetype == "application/json":
        name, parameters = _read_json(body)
        where = "parameters"
    else:
        raise UnsupportedMediaError(
            f"send multipart/form-data or application/json, not {mimetype[:80] or 'a body without Content-Type'}"
        )
    return _checked(name, parameters, where, is_name_optional=is_name_optional)


def _checked(name: Any, parameters: Any, where: str, *, is_name_optional: bool) -> tuple[str, Mapping[str, Any]]:
    wrong: dict[str, str] = {}
    if not isinstance(name, str) or not (is_name(name) or (is_name_optional and name == "")):
        wrong["name"] = f"the name {_NAME_RULE}"
    if not isinstance(parameters, dict):
        wrong[where] = f"`{where}` must be a JSON object of parameters"
    if wrong:
        raise InvalidError("; ".join(wrong.values()), detail=wrong)
    return name, parameters


def _read_json(body: Body) -> tuple[Any, Any]:
    content = _parse_json(_read_text(body), "the body")
    if not isinstance(content, dict):
        raise InvalidError(
            "the body must be a JSON object",
            detail={"body": 'must be an object such as {"name": ..., "parameters": {}}'},
        )
    unknown = sorted(set(content) - {"name", "parameters"})
    if unknown:
        raise InvalidError(
            f"unknown in the body: {', '.join(unknown)}; it has `name` and `parameters`",
            detail=dict.fromkeys(unknown, "the body has only `name` and `parameters`"),
        )
    return content.get("name", ""), content.get("parameters", {})


def _read_text(body: Body) -> bytes:
    text = bytearray()
    while data := body.read():
        text += data
        _limit_text(len(text))
    return bytes(text)


def _limit_text(size_bytes: int) -> None:
    if size_bytes > _TEXT_LIMIT_BYTES:
        raise TooLargeError(
            f"JSON and form fields may have {_TEXT_LIMIT_BYTES} bytes; send what is larger as a file part",
            detail={"limit_bytes": _TEXT_LIMIT_BYTES},
        )


def _decode(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError(f"{what} is not UTF-8: {error.reason} at byte {error.start}") from error


def _parse_json(data: bytes, what: str) -> Any:
    try:
        content = json.loads(_decode(data, what), parse_constant=_refuse_constant)
        json.dumps(content, ensure_ascii=False).encode()  # a lone surrogate is no text that could be stored
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"{what} is not well-formed JSON: {error}") from error
    return content


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


class _Form:
    """A multipart body: `name` and `data` are kept, every other part is a file for the draft."""

    def __init__(self, body: Body, draft: Draft, boundary: str) -> None:
        if not 1 <= len(boundary) <= _BOUNDARY_MAX or not boundary.isascii():
            raise BadRequestError(f"Content-Type needs a multipart boundary of 1 to {_BOUNDARY_MAX} ASCII characters")
        self._body = body
        self._draft = draft
        self._decoder = MultipartDecoder(boundary.encode(), max_parts=_PARTS_LIMIT)
        self._fields: dict[str, bytearray] = {}
        self._files: set[str] = set()
        self._is_text = False
        self._part: Field | File | None = None
        self._file: BinaryIO | None = None

    def read(self) -> dict[str, bytes]:
        """Take the whole body; return the fields."""
        try:
            while True:
                data = self._body.read()
                self._decoder.receive_data(data or None)
                if self._take():
                    return {key: bytes(value) for key, value in self._fields.items()}
        except (ValueError, AttributeError) as error:  # what the decoder raises for broken headers
            raise BadRequestError(f"malformed multipart body: {error}") from error
        except RequestEntityTooLarge as error:
            raise TooLargeError(f"a form may have {_PARTS_LIMIT} parts") from error
        finally:
            if self._file is not None:
                self._file.close()

    def _take(self) -> bool:
        """Handle the events there are; tell whether the last was the end."""
        while not isinstance(event := self._decoder.next_event(), NeedData):
            if isinstance(event, Epilogue):
                return True
            self._handle(event)
        return False

    def _handle(self, event: Event) -> None:
        if isinstance(event, Field | File):
            self._begin(event)
        elif isinstance(event, Data):
            if event.data:
                self._write(event.data)
            if not event.more_data:
                self._end()

    def _begin(self, part: Field | File) -> None:
        name = part.name or ""
        if not is_name(name):
            raise InvalidError(
                "a part has no name of a parameter", detail={name[:128] or "part": f"its name {_NAME_RULE}"}
            )
        if name in self._fields or name in self._files:
            raise InvalidError(f"{name!r} is given twice", detail={name: "is given twice"})
        self._part = part
        self._is_text = name in ("name", "data")
        if self._is_text:
            self._fields[name] = bytearray()

    def _write(self, data: bytes) -> None:
        assert self._part is not None
        if self._is_text:
            text = self._fields[self._part.name]
            text += data
            _limit_text(len(text))
            return
        self._open().write(data)

    def _open(self) -> BinaryIO:
        assert self._part is not None
        if self._file is None:
            self._files.add(self._part.name)
            self._file = self._draft.open(self._part.name, _basename(self._part))
        return self._file

    def _end(self) -> None:
        # a browser sends a file input that was left empty as a part with an empty filename
        is_empty_input = isinstance(self._part, File) and self._part.filename == "" and self._file is None
        if not self._is_text and not is_empty_input:
            self._open().close()
        self._file = None
        self._part = None


def _basename(part: Field | File) -> str:
    """Return the last segment of the filename that the client gave, or the part's name."""
    filename = part.filename if isinstance(part, File) else ""
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(character for character in name if character.isprintable())[-128:]
    return name if name.strip(". ") else part.name
