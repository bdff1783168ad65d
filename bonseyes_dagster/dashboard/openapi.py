"""The OpenAPI 3.1 document of the dashboard's own routes."""

from __future__ import annotations

from typing import Any

from bonseyes_dagster.dashboard.registry import ADDRESS_PATTERN
from bonseyes_dagster.urls import NAME_PATTERN
from bonseyes_dagster.version import __version__

__all__ = ["document"]

_NAME = {"type": "string", "pattern": NAME_PATTERN}
_REGISTERED = {
    "type": "object",
    "required": ["result", "name", "url"],
    "properties": {"result": {"const": "success"}, "name": _NAME, "url": {"type": "string"}},
}
_PIPELINE = {
    "type": "object",
    "required": ["name", "container", "description"],
    "properties": {"name": {"type": "string"}, "container": _NAME, "description": {"type": "string"}},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "detail", "request_id"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "detail": {},
                "request_id": {"type": ["string", "null"]},
            },
        }
    },
}


def document(name: str) -> dict[str, Any]:
    """Return the document of the dashboard `name`."""
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": __version__, "description": "The registry of a project's containers."},
        "paths": {
            "/": {"get": _get("The web page of the project", _answer("the page", {"type": "string"}, "text/html"))},
            "/pipelines": {
                "get": _get("The pipelines", _json("every registered pipeline", {"type": "array", "items": _PIPELINE}))
            },
            "/containers": {
                "get": _get(
                    "The containers",
                    _json(
                        "each container's description as `GET /` of it has it: the last known one when it is silent, "
                        "{} when it never answered",
                        {"type": "object", "additionalProperties": {"type": "object"}},
                    ),
                ),
                "post": _register(),
            },
            "/containers/{name}": {"delete": _remove()},
            "/healthz": {
                "get": _get("Readiness", _json("ready", {"type": "object"})) | {"responses": _health_answers()}
            },
            "/metrics": {"get": _get("Prometheus metrics", _answer("metrics", {"type": "string"}, "text/plain"))},
            "/openapi.json": {"get": _get("This document", _json("OpenAPI 3.1", {"type": "object"}))},
        },
        "components": {"schemas": {"Error": _ERROR}},
    }


def _register() -> dict[str, Any]:
    # One pattern with look-aheads, where `not` would be as right: generators of examples understand this one.
    name = {"type": "string", "pattern": rf"^(?!.*\.\.)(?!{ADDRESS_PATTERN}){NAME_PATTERN.removeprefix('^')}"}
    schema = {"type": "object", "required": ["name"], "properties": {"name": name}}
    refusals = {
        "400": "the body is not JSON",
        "403": "the name is of no container of this project",
        "413": "the body is too large",
        "415": "the body is not sent as JSON",
        "422": "the name cannot be a container's",
        "507": "the registry is full",
    }
    return {
        "summary": "Register a container; again is harmless",
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": _json("registered durably", _REGISTERED)}
        | {code: _error(t) for code, t in refusals.items()},
    }


def _remove() -> dict[str, Any]:
    return {
        "summary": "Forget a registered container; one that runs registers again within a minute",
        "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": _json("forgotten durably", {"type": "object", "properties": {"result": {"const": "success"}}}),
            "404": _error("it is not registered"),
        },
    }


def _health_answers() -> dict[str, Any]:
    return {"200": _json("ready", {"type": "object"}), "503": _error("not ready, with the reason")}


def _get(summary: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": answer}}


def _json(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return _answer(text, schema, "application/json")


def _answer(text: str, schema: dict[str, Any], media_type: str) -> dict[str, Any]:
    return {"description": text, "content": {media_type: {"schema": schema}}}


def _error(text: str) -> dict[str, Any]:
    return _json(text, {"$ref": "#/components/schemas/Error"})
