"""What becomes of a run whose process is gone: resumed, failed or cancelled, as Dagster's run monitoring would decide.

The daemon's monitoring finds such a run at its next poll; the run server knows at once. Both count attempts by the same
events in the run's log, and both start a process through the same lock, so they do not get in each other's way.
"""

from collections.abc import Callable

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._daemon.monitoring.run_monitoring import RESUME_RUN_LOG_MESSAGE

__all__ = ["recover_run"]


def recover_run(instance: DagsterInstance, run_id: str, why: str, start: Callable[[str, bool], None]) -> bool:
    """Bring a run without process on its way; say whether it is to have a new process.

    `why` says what happened to the old one; `start(run_id, is_resumed)` starts the new.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return False
    if run.status == DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, f"{why} The run was being cancelled, and is now.")
        return False
    if run.status not in (DagsterRunStatus.STARTING, DagsterRunStatus.STARTED):
        return False
    if not instance.run_will_resume(run_id):
        _fail(instance, run, why)
        return False
    instance.report_engine_event(f"{why} Resuming the run in a new one.", run)
    instance.report_engine_event(RESUME_RUN_LOG_MESSAGE, run)
    # What never reached its start is started, not resumed: only a start is announced to Dagster as one.
    start(run_id, run.status == DagsterRunStatus.STARTED)
    return True


def _fail(instance: DagsterInstance, run: DagsterRun, why: str) -> None:
    limit = instance.run_monitoring_max_resume_run_attempts
    reason = f"after {limit} attempts to resume it" if instance.run_monitoring_enabled else "resuming is switched off"
    data = JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION)
    instance.report_run_failed(run, f"{why} The run has failed: {reason}.", data)
