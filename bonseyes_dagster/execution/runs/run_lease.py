"""What the executor holds while it executes a run, so that nobody takes the run for lost; executor.py takes it.

A process that was made for a run holds the run's record from its first moment (run_worker.py): there is nothing to do.
Any other process takes the record here: that of `dagster job execute`, of `dagster asset materialize`, of a code
server, or one that calls `execute_in_process`. A thread of it then looks at the run: nobody sends such a process a
signal, because it may be somebody's notebook.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus

from bonseyes_dagster.execution.runs.run_record import RecordLock, is_held

__all__ = ["LOOK_S", "RunLease", "RunTakenError", "lease", "was_launched"]

LOOK_S = 1.0
# A run that was interrupted, to be resumed, does not end with its executor.
_LINGER_S = 30.0


def was_launched(instance: DagsterInstance, run_id: str) -> bool:
    """Tell whether a launcher was asked for a run: Dagster writes so down before it asks.

    A run of `dagster job execute` or of `execute_in_process` was not. It is executed by the process that created it.
    """
    return bool(instance.get_records_for_run(run_id, of_type=DagsterEventType.RUN_STARTING, limit=1).records)


class RunTakenError(Exception):
    """Another process executes this run."""


class RunLease:
    """Of a run that this process was made for: always launched, and stopped by signals."""

    is_guest = False

    def is_launched(self) -> bool:
        """Tell whether a launcher was asked for the run, so that it is resumed when its process is gone."""
        return True

    def takes_stop(self) -> bool:
        """Tell, once, that the run is to stop."""
        return False

    def cancel_unlaunched(self) -> bool:
        """Cancel the run if nobody resumes it after an interruption of its process; tell whether it was so."""
        return False


class _GuestLease(RunLease):
    """Of a run in somebody else's process."""

    is_guest = True

    def __init__(self, instance: DagsterInstance, run_id: str, record: RecordLock | None) -> None:
        self._instance = instance
        self._run_id = run_id
        self._record = record
        self._must_stop = threading.Event()
        self._has_stopped = False
        self._leave_at = float("inf")
        threading.Thread(target=self._look, name=f"lease of run {run_id[:8]}", daemon=True).start()

    def is_launched(self) -> bool:
        return was_launched(self._instance, self._run_id)

    def takes_stop(self) -> bool:
        if self._has_stopped or not self._must_stop.is_set():
            return False
        self._has_stopped = True
        return True

    def cancel_unlaunched(self) -> bool:
        if self.is_launched():
            return False
        run = self._instance.get_run_by_id(self._run_id)
        if run is not None and not run.is_finished and run.status is not DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run, "The run is cancelled: its process was interrupted.")
        return True

    def end(self) -> None:
        """Keep the record until the run has ended, too."""
        self._leave_at = time.monotonic() + _LINGER_S

    def _look(self) -> None:
        while time.monotonic() < self._leave_at:
            time.sleep(LOOK_S)
            is_executing = self._leave_at == float("inf")
            try:
                run = self._instance.get_run_by_id(self._run_id)
            except Exception:  # the database may be away; or the instance was closed after the run
                if is_executing:
                    continue
                break
            is_over = run is None or run.is_finished
            if is_over or (run is not None and run.status is DagsterRunStatus.CANCELING):
                self._must_stop.set()
            if is_over and not is_executing:
                break
        if self._record is not None:
            self._record.release()


@contextmanager
def lease(instance: DagsterInstance, run: DagsterRun) -> Iterator[RunLease]:
    """Hold a run's record while its steps are executed, and until the run has ended; raise RunTakenError."""
    if is_held(run.run_id) or instance.is_ephemeral:
        yield RunLease()
        return
    folder = _records_of(instance)
    record = RecordLock(folder, run.run_id, is_dedicated=False) if folder is not None else None
    if record is not None and not record.acquire():
        raise RunTakenError(f"Another process executes run {run.run_id}; this one ends.")
    guest = _GuestLease(instance, run.run_id, record)
    try:
        yield guest
    finally:
        guest.end()


def _records_of(instance: DagsterInstance) -> Path | None:
    """Return where the launcher of the instance looks for the records of runs; Dagster's own look nowhere."""
    records = getattr(instance.run_launcher, "records", None)
    return records if isinstance(records, Path) else None
