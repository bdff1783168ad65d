"""Private parts of Dagster that `execution/runs/` uses. A new version of Dagster may move them."""

from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.plan.objects import StepFailureData, UserFailureData
from dagster._core.execution.stats import StepEventStatus
from dagster._core.storage.dagster_run import RunRecord
from dagster._core.storage.tags import GRPC_INFO_TAG

__all__ = [
    "GRPC_INFO_TAG",
    "RESUME_RUN_LOG_MESSAGE",
    "JobFailureData",
    "RunFailureReason",
    "RunRecord",
    "StepEventStatus",
    "StepFailureData",
    "UserFailureData",
]

# A copy of the constant in `dagster._daemon.monitoring.run_monitoring`, whose import would take half a second in every
# process that loads the launcher.
RESUME_RUN_LOG_MESSAGE = "Launching a new run worker to resume run"
