"""Private parts of Dagster that `execution/launching/` uses. A new version of Dagster may move them."""

from typing import Any

from dagster._core.events import EngineEventData
from dagster._core.instance.config import PoolGranularity
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, ResumeRunContext, RunLauncher, WorkerStatus
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.run_coordinator.queued_run_coordinator import RunQueueConfig
from dagster._core.storage.dagster_run import ACTIVE_RUN_STATUSES
from dagster._core.storage.tags import GRPC_INFO_TAG, PRIORITY_TAG
from dagster._serdes import ConfigurableClass, ConfigurableClassData, deserialize_value
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.tags import TagConcurrencyLimitsCounter

__all__ = [
    "ACTIVE_RUN_STATUSES",
    "GRPC_INFO_TAG",
    "PRIORITY_TAG",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "EngineEventData",
    "LaunchRunContext",
    "PoolGranularity",
    "QueuedRunCoordinator",
    "ResumeRunContext",
    "RunLauncher",
    "RunQueueConfig",
    "SubmitRunContext",
    "TagConcurrencyLimitsCounter",
    "WorkerStatus",
    "deserialize_value",
    "grpc_client_classes",
    "serializable_error_info_from_exc_info",
]


def grpc_client_classes() -> tuple[Any, Any, Any]:
    """Return client, request and result for a question to a code server; grpc takes 65 ms to import, and few ask."""
    from dagster._grpc.client import DagsterGrpcClient
    from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult

    return DagsterGrpcClient, CanCancelExecutionRequest, CanCancelExecutionResult
