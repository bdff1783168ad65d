"""Private parts of Dagster that `execution/processes/` uses. A new version of Dagster may move them."""

from dagster._cli.api import _execute_run_command_body, _execute_step_command_body, _resume_run_command_body
from dagster._core.code_pointer import CodePointer
from dagster._core.definitions.reconstruct import ReconstructableRepository, reconstructable
from dagster._core.workspace.autodiscovery import (
    LoadableTarget,
    loadable_targets_from_python_file,
    loadable_targets_from_python_module,
)
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import deserialize_value, serialize_value
from dagster._utils.interrupts import capture_interrupts

__all__ = [
    "CodePointer",
    "ExecuteStepArgs",
    "LoadableTarget",
    "ReconstructableRepository",
    "_execute_run_command_body",
    "_execute_step_command_body",
    "_resume_run_command_body",
    "capture_interrupts",
    "deserialize_value",
    "loadable_targets_from_python_file",
    "loadable_targets_from_python_module",
    "reconstructable",
    "serialize_value",
]
