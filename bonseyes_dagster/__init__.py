"""Machine-learning pipelines as Dagster jobs over tool containers that speak one HTTP artifact API.

A project's `definitions.py` and a tool's function import their names from here. The package imports each name at its
first use. So `import bonseyes_dagster` is fast and does not need Dagster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bonseyes_dagster.version import __version__ as __version__

if TYPE_CHECKING:
    from bonseyes_dagster.errors import ToolError
    from bonseyes_dagster.execution.threads.executor import concurrent_executor
    from bonseyes_dagster.model import Task
    from bonseyes_dagster.orchestration.inbox.sensor import inbox_sensor
    from bonseyes_dagster.orchestration.pipeline import Pipeline, PipelineParameter
    from bonseyes_dagster.orchestration.steps.references import ArtifactRef
    from bonseyes_dagster.orchestration.steps.tool_op import tool_op
    from bonseyes_dagster.tool.artifact import Artifact
    from bonseyes_dagster.tool.fetching.inputs import Input

__all__ = [
    "Artifact",
    "ArtifactRef",
    "Input",
    "Pipeline",
    "PipelineParameter",
    "Task",
    "ToolError",
    "concurrent_executor",
    "inbox_sensor",
    "tool_op",
]

_MODULES = {
    "Artifact": "bonseyes_dagster.tool.artifact",
    "ArtifactRef": "bonseyes_dagster.orchestration.steps.references",
    "Input": "bonseyes_dagster.tool.fetching.inputs",
    "Pipeline": "bonseyes_dagster.orchestration.pipeline",
    "PipelineParameter": "bonseyes_dagster.orchestration.pipeline",
    "Task": "bonseyes_dagster.model",
    "ToolError": "bonseyes_dagster.errors",
    "concurrent_executor": "bonseyes_dagster.execution.threads.executor",
    "inbox_sensor": "bonseyes_dagster.orchestration.inbox.sensor",
    "tool_op": "bonseyes_dagster.orchestration.steps.tool_op",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
