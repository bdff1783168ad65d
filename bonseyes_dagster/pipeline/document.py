"""The OpenAPI document of a pipeline container: the routes of every container, and the routes that pipelines add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bonseyes_dagster.model import TERMINAL_PHASES, ToolDescription
from bonseyes_dagster.web.openapi import merge_patch, read_document, service_document

__all__ = ["KINDS", "STATUSES", "UNREACHABLE_HEADER", "pipeline_document"]

UNREACHABLE_HEADER = "X-Bonseyes-Unreachable"
KINDS = ("data", "model", "other")
STATUSES = ("in-progress", "queued", "running", *sorted(TERMINAL_PHASES))

_PIPELINE = Path(__file__).with_name("openapi.yml")


def pipeline_document(description: ToolDescription, name_length: int) -> dict[str, Any]:
    """Return the document of one pipeline, whose runs have names of `name_length` characters at most."""
    runs = service_document(description, "runs", name_length=name_length)
    document: dict[str, Any] = merge_patch(runs, read_document(_PIPELINE))
    return document
