"""How a run ends without its process having its say: its steps end with it, and the log says why."""

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
    "close_steps",
    "fail_run_that_took_too_long",
    "fail_run_with",
    "fail_unlaunched",
    "is_closed_with_its_run",
    "may_have_left_work",
    "withdraw_nothing",
]

# Cancels what an ended run, given by its id, left at work elsewhere; False says that it is to be called again.
Withdraw = Callable[[DagsterInstance, str], bool]

_LABEL = "ended with its run"
# How Dagster's run monitoring begins to end a run that exceeds `dagster/max_runtime`.
_TOO_LONG = "Canceling due to exceeding maximum runtime"


def fail_run_with(instance: DagsterInstance, run: DagsterRun, reason: str, kind: RunFailureReason) -> None:
    """Fail a run, and the steps that it has in flight."""
    close_steps(instance, run, reason)
    instance.report_run_failed(run, reason, JobFailureData(error=None, failure_reason=kind))


def fail_unlaunched(instance: DagsterInstance, run: DagsterRun) -> None:
    """End a run that nobody launched, and whose process is gone."""
    sentence = "The run's process ended; the run was executed by `dagster job execute` and is not resumed."
    fail_run_with(instance, run, sentence, RunFailureReason.UNEXPECTED_TERMINATION)


def cancel_run(instance: DagsterInstance, run: DagsterRun, reason: str | None = None) -> None:
    """Mark a run as cancelled, and its steps in flight as ended."""
    close_steps(instance, run, reason or "The run was cancelled.")
    instance.report_run_canceled(run, reason)


def close_steps(instance: DagsterInstance, run: DagsterRun, reason: str) -> None:
    """Write an end for each step that has begun and not ended, once its process is gone or is not waited for."""
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
    """Tell whether a step's failure was written by `close_steps`: nobody has seen what became of its artifact."""
    data: Any = event.event_specific_data
    failure = data.user_failure_data if isinstance(data, StepFailureData) else None
    return failure is not None and failure.label == _LABEL


def fail_run_that_took_too_long(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Fail a run that Dagster's run monitoring has begun to end because it exceeds its time; say whether it has.

    The monitoring tells the launcher to terminate the run, and only then fails it. The run's process would meanwhile
    find the run to be cancelled, and its end would be one of two.
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
    """Tell whether a run has ended in a way in which something may be at work for it still."""
    return run is not None and run.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)


def withdraw_nothing(instance: DagsterInstance, run_id: str) -> bool:
    """Do nothing: the ops of this server's runs leave no work elsewhere."""
    return True
