"""Private parts of Dagster that `execution/threads/` uses. A new version of Dagster may move them."""

from dagster._core.definitions.executor_definition import multiple_process_executor_requirements
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext, StepExecutionContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import (
    _handle_compute_log_setup_error,
    _handle_compute_log_teardown_error,
    _trigger_hook,
    dagster_event_sequence_for_step,
)
from dagster._core.execution.plan.execute_step import core_dagster_event_sequence_for_step
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.objects import StepFailureData, StepRetryData, UserFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.execution.tags import get_tag_concurrency_limits_config
from dagster._core.executor import multiprocess as dagster_multiprocess
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import ConfigurableClassData, deserialize_value, serialize_value
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.interrupts import capture_interrupts, check_captured_interrupt

__all__ = [
    "IO_TYPE_EXTENSION",
    "ActiveExecution",
    "CapturedLogContext",
    "ComputeIOType",
    "ConfigurableClassData",
    "DagsterExecutionInterruptedError",
    "EngineEventData",
    "ExecuteRunWithPlanIterable",
    "ExecuteStepArgs",
    "ExecutionPlan",
    "ExecutionStep",
    "InstanceConcurrencyContext",
    "KnownExecutionState",
    "LocalComputeLogManager",
    "PlanExecutionContext",
    "PlanExecutionContextManager",
    "PlanOrchestrationContext",
    "RetryMode",
    "StepExecutionContext",
    "StepFailureData",
    "StepRetryData",
    "UserFailureData",
    "_handle_compute_log_setup_error",
    "_handle_compute_log_teardown_error",
    "_trigger_hook",
    "capture_interrupts",
    "check_captured_interrupt",
    "core_dagster_event_sequence_for_step",
    "create_compute_log_file_key",
    "dagster_event_sequence_for_step",
    "dagster_multiprocess",
    "deserialize_value",
    "get_retries_config",
    "get_tag_concurrency_limits_config",
    "multiple_process_executor_requirements",
    "serializable_error_info_from_exc_info",
    "serialize_value",
]
