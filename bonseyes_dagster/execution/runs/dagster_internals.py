"""What `execution/runs/` uses of Dagster that is not public: a new version of Dagster may move it."""

from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.plan.objects import StepFailureData, UserFailureData
from dagster._core.execution.stats import StepEventStatus
from dagster._core.storage.dagster_run import RunRecord

__all__ = [
    "RESUME_RUN_LOG_MESSAGE",
    "JobFailureData",
    "RunFailureReason",
    "RunRecord",
    "StepEventStatus",
    "StepFailureData",
    "UserFailureData",
]

# `dagster._daemon.monitoring.run_monitoring` has it; to import that module takes half a second, and every process of
# Dagster would.
RESUME_RUN_LOG_MESSAGE = "Launching a new run worker to resume run"
