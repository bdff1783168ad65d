"""What becomes of a run whose process is gone: resumed, failed or cancelled, as Dagster's run monitoring would decide.

The daemon's monitoring finds such a run at its next poll; the run server knows at once. Both count attempts by the same
events in the run's log, and both start a process through the same lock, so they do not get in each other's way.
Attempts count from the last step that ended: a run that gets on may lose its process as often as it likes. A step that
ends its process each time fails by itself (step_losses.py); the limit here is for what ends the process of a run else.
"""

from collections.abc import Callable

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus

from bonseyes_dagster.execution.runs.dagster_internals import RESUME_RUN_LOG_MESSAGE, RunFailureReason
from bonseyes_dagster.execution.runs.run_end import cancel_run, fail_run_with, fail_unlaunched
from bonseyes_dagster.execution.runs.run_lease import was_launched

__all__ = ["MOST_FRUITLESS_ATTEMPTS", "fail_run", "fruitless_attempts", "recover_run"]

MOST_FRUITLESS_ATTEMPTS = 10
# After these, resuming waits for whoever looks next: what kills may be over by then, as when memory is short.
_ATTEMPTS_AT_ONCE = 3
# A process that lived for so long was not killed by what it did when it resumed.
_LONG_LIFE_S = 300.0
_STEP_ENDS = {DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE, DagsterEventType.STEP_SKIPPED}


def recover_run(
    instance: DagsterInstance,
    run_id: str,
    why: str,
    start: Callable[[str, bool], None],
    *,
    had_record: bool,
    is_news: bool = False,
) -> bool:
    """Bring a run without process on its way; say whether it is to have a new process.

    `why` says what happened to the old one, which is news when it has just ended; `start(run_id, is_resumed)` starts
    the new one. `had_record` tells whether the old one had a record. A run that nobody launched is never started: it
    fails when the process with its record is gone, and is left alone when it had no record.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return False
    if _is_being_cancelled(instance, run):
        cancel_run(instance, run, f"{why} The run was being cancelled, and is now.")
        return False
    if run.status not in (DagsterRunStatus.STARTING, DagsterRunStatus.STARTED):
        return False
    if not was_launched(instance, run_id):
        if had_record:
            fail_unlaunched(instance, run)
        return False
    attempts = fruitless_attempts(instance, run_id)
    if attempts >= MOST_FRUITLESS_ATTEMPTS or not instance.run_will_resume(run_id):
        fail_run(instance, run, why)
        return False
    if is_news and attempts >= _ATTEMPTS_AT_ONCE:
        instance.report_engine_event(f"{why} Resuming the run in a new one after a pause.", run)
        return True
    instance.report_engine_event(f"{why} Resuming the run in a new one.", run)
    instance.report_engine_event(RESUME_RUN_LOG_MESSAGE, run)
    # What never reached its start is started, not resumed: only a start is announced to Dagster as one.
    start(run_id, run.status == DagsterRunStatus.STARTED)
    return True


def _is_being_cancelled(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Tell whether somebody asked the run to end.

    A process that reports its start a moment later overwrites the status; the event in the log stays.
    """
    if run.status == DagsterRunStatus.CANCELING:
        return True
    asked = instance.get_records_for_run(run.run_id, of_type=DagsterEventType.RUN_CANCELING, limit=1)
    return bool(asked.records)


def fruitless_attempts(instance: DagsterInstance, run_id: str) -> int:
    """Return how often a run was resumed since one of its steps ended, or a process of it lived for a while."""
    count, resumed_at = 0, 0.0
    for entry in instance.all_logs(run_id, of_type={DagsterEventType.ENGINE_EVENT, *_STEP_ENDS}):
        if entry.dagster_event is not None and entry.dagster_event.event_type in _STEP_ENDS:
            count = 0
        elif entry.message == RESUME_RUN_LOG_MESSAGE:
            count = 1 if entry.timestamp - resumed_at > _LONG_LIFE_S else count + 1
            resumed_at = entry.timestamp
    return count


def fail_run(instance: DagsterInstance, run: DagsterRun, why: str) -> None:
    """End a run that is not to be resumed."""
    if instance.run_will_resume(run.run_id):
        reason = f"{MOST_FRUITLESS_ATTEMPTS} times it was resumed, and lost its process before a step ended"
    elif instance.run_monitoring_enabled:
        reason = f"max_resume_run_attempts is {instance.run_monitoring_max_resume_run_attempts}"
    else:
        reason = "resuming is switched off"
    sentence = f"{why} The run has failed: {reason}."
    fail_run_with(instance, run, sentence, RunFailureReason.UNEXPECTED_TERMINATION)
