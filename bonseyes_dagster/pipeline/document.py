"""The OpenAPI document of a pipeline container: the uniform routes of runs, and what pipelines add."""

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


def pipeline_document(description: ToolDescription) -> dict[str, Any]:
    """Return the document of one pipeline."""
    document: dict[str, Any] = merge_patch(service_document(description, "runs"), read_document(_PIPELINE))
    return document
