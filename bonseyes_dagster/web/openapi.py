"""Builds the OpenAPI 3.1 document of a service: the base that all share, and the uniform artifact paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bonseyes_dagster import errors
from bonseyes_dagster.model import API_VERSION, ToolDescription
from bonseyes_dagster.urls import HEALTHZ, METRIC_CHARACTERS, METRIC_PATTERN, METRICS, OPENAPI, Collection, collection
from bonseyes_dagster.web.schemas import NAME, SCHEMAS, creation_schemas, ref, run_status, wire_errors

__all__ = [
    "artifact_paths",
    "artifact_schemas",
    "build_document",
    "json_content",
    "operation",
    "parameter",
    "service_document",
    "text_content",
]

METRIC_VIEWS = ("scalar", "json", "csv")
_BOOLEAN = {"type": "string", "enum": ["", "1", "true", "yes", "on", "0", "false", "no", "off"]}
_OFFSET = {"type": "integer", "minimum": 0, "maximum": 2**62}
_BINARY = {"type": "string", "format": "binary"}
# what any route may answer: a path that is not well-formed, a fault of ours
_EVERYWHERE: tuple[type[errors.BonseyesError], ...] = (errors.BadRequestError, errors.BonseyesError)

_FILE_HEADERS = ("ETag", "Content-Disposition", "Accept-Ranges", "Content-Length")
_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "X-Request-Id": ("given in the request or made; the server's log has it", {"type": "string"}),
    "Location": ("the URL of what was created", {"type": "string"}),
    "Link": ('the next page, as `<URL>; rel="next"`; absent on the last', {"type": "string"}),
    "ETag": ("strong; the sha256 of the file, or a digest of the archive's content", {"type": "string"}),
    "Repr-Digest": ("`sha-256=:BASE64:` of the whole file", {"type": "string"}),
    "Content-Disposition": ("always an attachment", {"type": "string"}),
    "Content-Range": ("which bytes these are", {"type": "string"}),
    "Content-Length": ("bytes that follow; fewer mean a broken answer", {"type": "string"}),
    "Accept-Ranges": ("`bytes` for one file, `none` for an archive", {"type": "string"}),
    "X-Next-Offset": ("the `offset` with which to ask for what comes later", {"type": "string"}),
    "Retry-After": ("seconds", {"type": "string"}),
    "Allow": ("the methods that the route has", {"type": "string"}),
}


def json_content(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `content` of a JSON body."""
    return {"application/json": {"schema": dict(schema)}}


def text_content(mimetype: str = "text/plain") -> dict[str, Any]:
    """Return the `content` of a body of text."""
    return {mimetype: {"schema": {"type": "string"}}}


def parameter(
    name: str, schema: Mapping[str, Any], description: str, *, where: str = "query", required: bool = False
) -> dict[str, Any]:
    """Return one parameter object."""
    body = {"name": name, "in": where, "required": required or where == "path", "description": description}
    return {**body, "schema": dict(schema)}


def operation(
    operation_id: str,
    summary: str,
    *,
    content: Mapping[str, Any] | None = None,
    headers: Iterable[str] = (),
    parameters: Iterable[Mapping[str, Any]] = (),
    fails: Iterable[type[errors.BonseyesError]] = (),
    body: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return an operation: `content` and `headers` are of its 200, `fails` names its errors, `more` other answers."""
    responses: dict[str, Any] = {"200": _answer("done", content, headers)}
    statuses = {cls.http_status for cls in fails} | {cls.http_status for cls in _EVERYWHERE}
    for status in sorted(statuses):
        responses[str(status)] = {"$ref": f"#/components/responses/E{status}"}
    result: dict[str, Any] = {
        "operationId": operation_id,
        "summary": summary,
        "parameters": [dict(entry) for entry in parameters],
        "responses": responses | dict(more or {}),
    }
    if body is not None:
        result["requestBody"] = {"required": True, "content": dict(body)}
    return result


def _answer(description: str, content: Mapping[str, Any] | None, headers: Iterable[str] = ()) -> dict[str, Any]:
    named = ["X-Request-Id", *headers]
    body: dict[str, Any] = {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in named},
    }
    if content is not None:
        body["content"] = dict(content)
    return body


def build_document(
    title: str,
    description: str,
    paths: Mapping[str, Any],
    *,
    schemas: Mapping[str, Any] | None = None,
    version: str = API_VERSION,
) -> dict[str, Any]:
    """Return the document of a service: `paths` and those that every service has."""
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "description": description, "version": version or API_VERSION},
        "paths": {**paths, **_base_paths()},
        "components": {
            "schemas": {**SCHEMAS, **(schemas or {})},
            "headers": {name: {"description": text, "schema": schema} for name, (text, schema) in _HEADERS.items()},
            "responses": _error_responses(),
        },
    }


def service_document(description: ToolDescription, kind: Collection = "artifacts") -> dict[str, Any]:
    """Return the document of a tool; a pipeline adds its own paths to those of `artifact_paths("runs")`."""
    root = operation("describe", "What this container is", content=json_content(ref("Description")))
    return build_document(
        description.name,
        description.description,
        {"/": {"get": root}, **artifact_paths(kind)},
        schemas=artifact_schemas(description, kind),
        version=description.version,
    )


def artifact_schemas(
    description: ToolDescription, kind: Collection, *, name_length: int = NAME["maxLength"]
) -> dict[str, Any]:
    """Return the schemas that `artifact_paths` refers to beside those of every document."""
    return creation_schemas(description, kind, name_length=name_length) | (run_status() if kind == "runs" else {})


def _error_responses() -> dict[str, Any]:
    by_status: dict[int, list[type[errors.BonseyesError]]] = {}
    for cls in wire_errors():
        by_status.setdefault(cls.http_status, []).append(cls)
    responses = {}
    for status, classes in by_status.items():
        text = "; ".join(f"`{cls.code}`: {(cls.__doc__ or '').splitlines()[0]}" for cls in classes)
        headers = {405: ["Allow"], 416: ["Content-Range"], 429: ["Retry-After"], 503: ["Retry-After"]}
        responses[f"E{status}"] = _answer(text, json_content(ref("Error")), headers.get(status, []))
    return responses


def _base_paths() -> dict[str, Any]:
    healthz = operation(
        "healthz",
        "Whether it is ready",
        content=json_content(ref("Ready")),
        fails=[errors.UnavailableError],
    )
    metrics = operation("metrics", "Metrics for Prometheus", content=text_content())
    document = operation("openapi", "This document", content=json_content({"type": "object"}))
    return {HEALTHZ: {"get": healthz}, METRICS: {"get": metrics}, OPENAPI: {"get": document}}


# The uniform artifact routes


def artifact_paths(kind: Collection = "artifacts") -> dict[str, Any]:
    """Return the paths of the uniform routes below `/artifacts` or `/runs`."""
    base = collection(kind)
    item = f"{base}/{{name}}"
    paths: dict[str, Any] = {
        base: {"get": _list(kind), "post": _create(kind)},
        item: {"get": _info(), "delete": _delete(kind), **({"patch": _rename()} if kind == "artifacts" else {})},
        f"{item}/cancel": {"post": _of_one("cancel", "Cancel it; harmless when it is final", ref("Status"))},
        f"{item}/status": {"get": _status()},
        f"{item}/files": {"get": _files()},
        f"{item}/data": {"get": _data("data", "Its one file, or a zip of its files", has_path=False)},
        f"{item}/data/{{path}}": {"get": _data("data_path", "One file, or a zip of a folder", has_path=True)},
        f"{item}/log": {"get": _log()},
        **_input_paths(item),
        **_metric_paths(item),
    }
    for path, operations in paths.items():
        for entry in operations.values():
            entry["operationId"] = f"{kind}_{entry['operationId']}"
            if "{name}" in path:
                entry["parameters"].insert(0, parameter("name", NAME, "its name", where="path"))
    return paths


def _list(kind: Collection) -> dict[str, Any]:
    entries = {"anyOf": [{"type": "array", "items": NAME}, {"type": "array", "items": ref("Status")}]}
    return operation(
        "list",
        f"Names of all {kind}, oldest first",
        content=json_content(entries),
        headers=["Link"],
        parameters=[
            parameter("limit", {"type": "integer", "minimum": 1, "maximum": 10_000}, "how many at most"),
            parameter("after", NAME, "the name that the page begins after"),
            parameter("detail", _BOOLEAN, "status objects in place of names"),
        ],
        fails=[errors.NotFoundError],
    )


def _create(kind: Collection) -> dict[str, Any]:
    form = {"schema": ref("CreateByForm"), "encoding": {"data": {"contentType": "application/json"}}}
    return operation(
        "create",
        "Create one: answered when its inputs are durable, not when it is made",
        content=json_content(ref("Created")),
        headers=["Location"],
        parameters=[
            parameter("reuse", _BOOLEAN, "make it at once from a completed one with the same fingerprint"),
            parameter(
                "Idempotency-Key",
                {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
                "the same key and body give the same artifact; the same key with another body is refused",
                where="header",
            ),
        ],
        body={"multipart/form-data": form, "application/json": {"schema": ref("CreateByJson")}},
        fails=[
            errors.ConflictError,
            errors.TooLargeError,
            errors.UnsupportedMediaError,
            errors.InvalidError,
            errors.QueueFullError,
            errors.UnavailableError,
            errors.StorageFullError,
        ],
    )


def _of_one(operation_id: str, summary: str, schema: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    fails = [errors.NotFoundError, *options.pop("fails", ())]
    return operation(operation_id, summary, content=json_content(schema), fails=fails, **options)


def _info() -> dict[str, Any]:
    return _of_one("info", "Everything known about it", ref("Info"))


def _rename() -> dict[str, Any]:
    return _of_one(
        "rename",
        "Give it another name; its idempotency key is free again",
        ref("Created"),
        headers=["Location"],
        body=json_content(ref("Change")),
        fails=[
            errors.ConflictError,
            errors.TooLargeError,
            errors.UnsupportedMediaError,
            errors.InvalidError,
            errors.UnavailableError,
            errors.StorageFullError,
        ],
    )


def _delete(kind: Collection) -> dict[str, Any]:
    flag = parameter("artifacts", _BOOLEAN, "remove the artifacts that it made, too")
    return _of_one(
        "delete",
        "Cancel it if it is in progress, and remove it",
        ref("Deleted" if kind == "runs" else "Success"),
        parameters=[flag] if kind == "runs" else [],
        fails=[errors.UnavailableError],
    )


def _status() -> dict[str, Any]:
    wait = parameter("wait", {"type": "number", "minimum": 0}, "seconds to wait for a final result; 60 at most")
    return _of_one("status", "Where it stands", ref("Status"), parameters=[wait])


def _files() -> dict[str, Any]:
    schema = {"type": "array", "items": ref("File")}
    return _of_one("files", "Its manifest; 404 until completed", schema, headers=["ETag"])


def _data(operation_id: str, summary: str, *, has_path: bool) -> dict[str, Any]:
    content = {"application/octet-stream": {"schema": _BINARY}, "application/zip": {"schema": _BINARY}}
    path = parameter("path", {"type": "string", "minLength": 1}, "relative, with forward slashes", where="path")
    return _file(operation_id, summary, content, [path] if has_path else [])


def _file(
    operation_id: str, summary: str, content: Mapping[str, Any], parameters: list[dict[str, Any]]
) -> dict[str, Any]:
    binary = {"application/octet-stream": {"schema": _BINARY}}
    conditions = [
        parameter("Range", {"type": "string"}, "one range of bytes; others are ignored", where="header"),
        parameter("If-Range", {"type": "string"}, "an ETag; the range counts only if it is current", where="header"),
        parameter("If-None-Match", {"type": "string"}, "ETags; 304 if one is current", where="header"),
        parameter("If-Match", {"type": "string"}, "ETags; 412 if none is current", where="header"),
    ]
    return operation(
        operation_id,
        summary,
        content=content,
        headers=[*_FILE_HEADERS, "Repr-Digest"],
        parameters=[*parameters, *conditions],
        fails=[errors.NotFoundError, errors.PreconditionFailedError, errors.RangeError],
        more={
            "206": _answer("a range", binary, [*_FILE_HEADERS, "Content-Range", "Repr-Digest"]),
            "304": _answer("the client has it already", None, ["ETag"]),
        },
    )


def _log() -> dict[str, Any]:
    return operation(
        "log",
        "What it wrote, so far or to its end",
        content=text_content(),
        parameters=[
            parameter("offset", _OFFSET, "the byte to begin at"),
            parameter("follow", _BOOLEAN, "go on, line by line, until it is final"),
        ],
        fails=[errors.NotFoundError],
    )


def _input_paths(item: str) -> dict[str, Any]:
    file = parameter("file", {"type": "string", "minLength": 1}, "one of the list", where="path")
    binary = {"application/octet-stream": {"schema": _BINARY}}
    return {
        f"{item}/input-parameters": {
            "get": _of_one("input_parameters", "Its parameters as used, defaults filled in", {"type": "object"})
        },
        f"{item}/input-files": {
            "get": _of_one(
                "input_files", "The parameters that were uploaded", {"type": "array", "items": {"type": "string"}}
            )
        },
        f"{item}/input-files/{{file}}": {"get": _file("input_file", "One uploaded file", binary, [file])},
    }


def _metric_paths(item: str) -> dict[str, Any]:
    metric_name = {"type": "string", "pattern": METRIC_PATTERN, "maxLength": METRIC_CHARACTERS}
    metric = parameter("metric", metric_name, "one of the list; its slashes may be encoded or not", where="path")
    view = parameter("view", {"type": "string", "enum": list(METRIC_VIEWS)}, "how it is written", where="path")
    offset = parameter("offset", _OFFSET, "the byte of the scalar view to begin at")
    points = {
        "text/plain": {"schema": {"type": "string", "description": "a line `UNIX_TIME STEP VALUE` a point"}},
        "application/json": {"schema": {"type": "array", "items": ref("Point")}},
        "text/csv": {"schema": {"type": "string"}},
    }
    names = {"type": "array", "items": metric_name}
    views = {"type": "array", "items": {"type": "string", "enum": list(METRIC_VIEWS)}}
    return {
        f"{item}/metrics": {"get": _of_one("metrics", "The metrics that have points so far", names)},
        f"{item}/metrics/{{metric}}": {"get": _of_one("metric", "The views of one", views, parameters=[metric])},
        f"{item}/metrics/{{metric}}/{{view}}": {
            "get": operation(
                "metric_view",
                "The points of one, so far",
                content=points,
                headers=["X-Next-Offset"],
                parameters=[metric, view, offset],
                fails=[errors.NotFoundError],
            )
        },
    }
