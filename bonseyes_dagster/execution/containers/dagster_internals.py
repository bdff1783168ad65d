"""What `execution/containers/` uses of Dagster that is not public: a new version of Dagster may move it."""

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
