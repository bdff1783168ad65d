"""Private parts of Dagster that `orchestration/runs/` uses. A new version of Dagster may move them."""

from dagster._cli.job import _create_run
from dagster._core.errors import DagsterRunAlreadyExists
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.stats import RunStepKeyStatsSnapshot, StepEventStatus
from dagster._core.remote_representation.code_location import CodeLocation
from dagster._core.remote_representation.external import RemoteJob, RemoteRepository
from dagster._core.storage.dagster_run import FINISHED_STATUSES, RunRecord
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

__all__ = [
    "FINISHED_STATUSES",
    "CodeLocation",
    "DagsterRunAlreadyExists",
    "JobFailureData",
    "RemoteJob",
    "RemoteRepository",
    "RunFailureReason",
    "RunRecord",
    "RunStepKeyStatsSnapshot",
    "StepEventStatus",
    "WorkspaceFileTarget",
    "WorkspaceProcessContext",
    "WorkspaceRequestContext",
    "_create_run",
]
