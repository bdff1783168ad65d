"""The OpenAPI document of a pipeline container: the uniform routes of runs, and what pipelines add."""

from __future__ import annotations

from typing import Any

from bonseyes_dagster import errors
from bonseyes_dagster.model import TERMINAL_PHASES, ToolDescription
from bonseyes_dagster.web.openapi import (
    artifact_paths,
    artifact_schemas,
    build_document,
    json_content,
    operation,
    parameter,
)
from bonseyes_dagster.web.schemas import NAME, ref

__all__ = ["KINDS", "STATUSES", "UNREACHABLE_HEADER", "pipeline_document"]

UNREACHABLE_HEADER = "X-Bonseyes-Unreachable"
KINDS = ("data", "model", "other")
STATUSES = ("in-progress", "queued", "running", *sorted(TERMINAL_PHASES))

_KIND = {"type": "string", "enum": list(KINDS)}
_TEXT = {"type": "string"}


def pipeline_document(description: ToolDescription, name_length: int) -> dict[str, Any]:
    """Return the document of one pipeline, whose runs have names of `name_length` characters at most."""
    root = operation("describe", "What this pipeline is", content=json_content(ref("Description")))
    return build_document(
        description.name,
        description.description,
        {"/": {"get": root}, **artifact_paths("runs"), **_paths()},
        schemas=artifact_schemas(description, "runs", name_length=name_length) | _schemas(),
        version=description.version,
    )


def _paths() -> dict[str, Any]:
    kind = parameter("type", _KIND, "only containers of this kind")
    artifacts = operation(
        "artifacts",
        "The artifacts of all containers of this pipeline",
        content=json_content({"type": "array", "items": ref("ArtifactEntry")}),
        parameters=[
            kind,
            parameter("output_type", _TEXT, "only artifacts of this type"),
            parameter(
                "status", {"type": "string", "enum": list(STATUSES)}, "only artifacts in this phase or of this result"
            ),
        ],
        fails=[errors.BadRequestError],
    )
    artifacts["responses"]["200"]["headers"][UNREACHABLE_HEADER] = {
        "description": "containers that did not answer, separated by commas; absent when all did",
        "schema": _TEXT,
    }
    return {
        "/task": {"get": operation("task", "What a model is wanted for", content=json_content(ref("Task")))},
        "/containers": {
            "get": operation(
                "containers",
                "The containers of this pipeline",
                content=json_content({"type": "array", "items": ref("ContainerEntry")}),
                parameters=[kind],
                fails=[errors.BadRequestError],
            )
        },
        "/containers/{name}": {
            "get": operation(
                "container",
                "One container of this pipeline",
                content=json_content(ref("ContainerEntry")),
                parameters=[parameter("name", NAME, "the container's name", where="path")],
                fails=[errors.NotFoundError],
            )
        },
        "/artifacts": {"get": artifacts},
    }


def _schemas() -> dict[str, Any]:
    criteria = {"type": "array", "items": {"type": "object"}}
    return {
        "Task": _object(
            {
                "name": _TEXT,
                "description": _TEXT,
                "output": _TEXT,
                "constraints": criteria,
                "archives": {"type": "object", "additionalProperties": _TEXT},
                "evaluation_criterias": criteria,
                "cost_function": _TEXT,
                "evaluation_dataset": _TEXT,
            }
        ),
        "ContainerEntry": _object(
            {
                "name": NAME,
                "type": _KIND,
                "status": {"type": "string", "enum": ["started", "missing"]},
                "info": {"anyOf": [{"type": "object"}, {"type": "null"}]},
            }
        ),
        "ArtifactEntry": _object(
            {
                "name": NAME,
                "container": NAME,
                "href": {"type": "string", "format": "uri"},
                "status": {"type": "string", "enum": sorted({"queued", "running", *TERMINAL_PHASES})},
                "output_type": _TEXT,
                "type": _KIND,
            }
        ),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
