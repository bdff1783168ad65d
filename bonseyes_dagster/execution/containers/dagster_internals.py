"""Private parts of Dagster that `execution/containers/` uses. A new version of Dagster may move them."""

from dagster._core.errors import DagsterLaunchFailedError
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, ResumeRunContext, WorkerStatus
from dagster._core.storage.dagster_run import RunRecord
from dagster._serdes import ConfigurableClassData

__all__ = [
    "CheckRunHealthResult",
    "ConfigurableClassData",
    "DagsterLaunchFailedError",
    "LaunchRunContext",
    "ResumeRunContext",
    "RunRecord",
    "WorkerStatus",
]
