"""Resumes, fails or cancels a run whose process is gone. It decides as Dagster's run monitoring does.

The daemon's monitoring finds such a run at its next poll; the run server knows at once. Both count attempts by the same
events in the run's log. Both start a process under the same lock, so that they do not disturb each other.
Attempts count from the last step that ended. So a run that makes progress may lose its process any number of times.
A step that always ends its process fails alone (step_losses.py). The limit here is for all other causes.
"""

from collections.abc import Callable

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus

from bonseyes_dagster.execution.runs.dagster_internals import RESUME_RUN_LOG_MESSAGE, RunFailureReason
from bonseyes_dagster.execution.runs.run_end import cancel_run, fail_run_with, fail_unlaunched
from bonseyes_dagster.execution.runs.run_lease import was_launched

__all__ = ["MAX_ATTEMPTS_WITHOUT_PROGRESS", "attempts_without_progress", "fail_run", "recover_run"]

MAX_ATTEMPTS_WITHOUT_PROGRESS = 10
# Later attempts wait for the next check. By then the cause may be over, for example a shortage of memory.
_ATTEMPTS_AT_ONCE = 3
# A process that was alive for this long was not killed by its first actions after the resume.
_LONG_LIFE_S = 300.0
_STEP_ENDS = {DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE, DagsterEventType.STEP_SKIPPED}


def recover_run(
    instance: DagsterInstance,
    run_id: str,
    cause: str,
    start: Callable[[str, bool], None],
    *,
    had_record: bool,
    has_just_ended: bool = False,
) -> bool:
    """Resume a run without process, or end it; tell whether the run gets a new process.

    `cause` is a sentence about the end of the old process, for the run's log. `start(run_id, is_resumed)` starts the
    new process. `had_record` tells whether the old process had a record. If it `has_just_ended`, later attempts wait
    for the next check.
    A run that no launcher started is never resumed. It fails if it had a record, and is left alone if it had none.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return False
    if run.status == DagsterRunStatus.CANCELING:
        cancel_run(instance, run, f"{cause} The run was being cancelled, and is now.")
        return False
    if run.status not in (DagsterRunStatus.STARTING, DagsterRunStatus.STARTED):
        return False
    if not was_launched(instance, run_id):
        if had_record:
            fail_unlaunched(instance, run)
        return False
    attempts = attempts_without_progress(instance, run_id)
    if attempts >= MAX_ATTEMPTS_WITHOUT_PROGRESS or not instance.run_will_resume(run_id):
        fail_run(instance, run, cause)
        return False
    if has_just_ended and attempts >= _ATTEMPTS_AT_ONCE:
        instance.report_engine_event(f"{cause} Resuming the run in a new one after a pause.", run)
        return True
    instance.report_engine_event(f"{cause} Resuming the run in a new one.", run)
    instance.report_engine_event(RESUME_RUN_LOG_MESSAGE, run)
    # A run that never started is started, not resumed: only a start writes RUN_START.
    start(run_id, run.status == DagsterRunStatus.STARTED)
    return True


def attempts_without_progress(instance: DagsterInstance, run_id: str) -> int:
    """Return how often a run was resumed since a step ended, or since a process of it was alive for _LONG_LIFE_S."""
    count, resumed_at = 0, 0.0
    for entry in instance.all_logs(run_id, of_type={DagsterEventType.ENGINE_EVENT, *_STEP_ENDS}):
        if entry.dagster_event is not None and entry.dagster_event.event_type in _STEP_ENDS:
            count = 0
        elif entry.message == RESUME_RUN_LOG_MESSAGE:
            count = 1 if entry.timestamp - resumed_at > _LONG_LIFE_S else count + 1
            resumed_at = entry.timestamp
    return count


def fail_run(instance: DagsterInstance, run: DagsterRun, cause: str) -> None:
    """Fail a run that must not be resumed."""
    if instance.run_will_resume(run.run_id):
        reason = f"{MAX_ATTEMPTS_WITHOUT_PROGRESS} times it was resumed, and lost its process before a step ended"
    elif instance.run_monitoring_enabled:
        reason = f"max_resume_run_attempts is {instance.run_monitoring_max_resume_run_attempts}"
    else:
        reason = "resuming is switched off"
    sentence = f"{cause} The run has failed: {reason}."
    fail_run_with(instance, run, sentence, RunFailureReason.UNEXPECTED_TERMINATION)
