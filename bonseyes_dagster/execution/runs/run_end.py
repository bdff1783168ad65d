"""Ends a run whose process cannot do it: the steps end with the run, and the log says why."""

from collections.abc import Callable
from typing import Any

from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus

from bonseyes_dagster.execution.runs.dagster_internals import (
    JobFailureData,
    RunFailureReason,
    StepEventStatus,
    StepFailureData,
    UserFailureData,
)

__all__ = [
    "Withdraw",
    "cancel_run",
    "close_left_steps",
    "close_steps",
    "fail_run_that_took_too_long",
    "fail_run_with",
    "fail_unlaunched",
    "is_closed_with_its_run",
    "may_have_left_work",
]

# Cancels the work that an ended run (by its id) left in tools. False asks for another call later.
Withdraw = Callable[[DagsterInstance, str], bool]

_LABEL = "ended with its run"
# Dagster's run monitoring starts its message so when a run exceeds `dagster/max_runtime`.
_TOO_LONG = "Canceling due to exceeding maximum runtime"


def fail_run_with(instance: DagsterInstance, run: DagsterRun, reason: str, kind: RunFailureReason) -> None:
    """Fail a run and its steps in flight."""
    close_steps(instance, run, reason)
    instance.report_run_failed(run, reason, JobFailureData(error=None, failure_reason=kind))


def fail_unlaunched(instance: DagsterInstance, run: DagsterRun) -> None:
    """Fail a run that no launcher started, and whose process is gone."""
    sentence = "The run's process ended; the run was executed by `dagster job execute` and is not resumed."
    fail_run_with(instance, run, sentence, RunFailureReason.UNEXPECTED_TERMINATION)


def cancel_run(instance: DagsterInstance, run: DagsterRun, reason: str | None = None) -> None:
    """Mark a run as cancelled, and end its steps in flight."""
    close_steps(instance, run, reason or "The run was cancelled.")
    instance.report_run_canceled(run, reason)


def close_steps(instance: DagsterInstance, run: DagsterRun, reason: str) -> None:
    """Write a failure for each step in flight, when its process is gone or nobody waits for it."""
    for stats in instance.get_run_step_stats(run.run_id):
        if stats.status is StepEventStatus.IN_PROGRESS:
            cause = UserFailureData(label=_LABEL, description=reason)  # type: ignore[no-untyped-call]
            failure = StepFailureData(error=None, user_failure_data=cause)  # type: ignore[no-untyped-call]
            event = DagsterEvent(
                DagsterEventType.STEP_FAILURE.value,
                run.job_name,
                step_key=stats.step_key,
                event_specific_data=failure,
                message=f'Execution of step "{stats.step_key}" ended with its run. {reason}',
            )
            instance.report_dagster_event(event, run.run_id)


def is_closed_with_its_run(event: DagsterEvent) -> bool:
    """Tell whether `close_steps` wrote a step's failure; then the state of the step's artifact is unknown."""
    data: Any = event.event_specific_data
    failure = data.user_failure_data if isinstance(data, StepFailureData) else None
    return failure is not None and failure.label == _LABEL


def fail_run_that_took_too_long(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Fail a run that Dagster's run monitoring ends because it exceeds its time; tell whether it is such a run.

    The monitoring asks the launcher to terminate the run, and fails it only afterwards. In between, the run's process
    would see a cancelled run and would cancel it, so that the run ends twice.
    """
    events = instance.get_records_for_run(
        run.run_id, of_type=DagsterEventType.RUN_CANCELING, limit=1, ascending=False
    ).records
    message = (events[0].event_log_entry.message if events else "") or ""
    if not message.startswith(_TOO_LONG):
        return False
    reason = message.replace("Canceling due to exceeding", "Exceeded")
    instance.report_run_failed(run, reason, JobFailureData(error=None, failure_reason=RunFailureReason.UNKNOWN))
    return True


def may_have_left_work(run: DagsterRun | None) -> bool:
    """Tell whether tools may still work for a run: it has failed or was cancelled."""
    return run is not None and run.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)


def close_left_steps(instance: DagsterInstance, run_id: str) -> bool:
    """Write an end for the steps that an ended run left in flight; for runs whose ops leave no work elsewhere."""
    run = instance.get_run_by_id(run_id)
    if run is not None and may_have_left_work(run):
        close_steps(instance, run, "The run ended, and the step with it.")
    return True
