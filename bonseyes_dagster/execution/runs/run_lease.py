"""The lease of a run: the executor (executor.py) holds it while it executes, so that the run does not look lost.

A process that was started for a run has locked the run's record already (run_worker.py). There the lease does nothing.
Any other process locks the record here: `dagster job execute`, `dagster asset materialize`, a code server, or a caller
of `execute_in_process`. Such a process may be a notebook, so it gets no signals. Instead, a thread of it polls the
run's status.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus

from bonseyes_dagster.execution.runs.process_record import RecordLock, holds_record

__all__ = ["POLL_S", "RunLease", "RunTakenError", "lease", "was_launched"]

POLL_S = 1.0
# An interrupted run that will be resumed does not end with its executor. The lease waits this long for the run's end.
_END_TIMEOUT_S = 30.0


def was_launched(instance: DagsterInstance, run_id: str) -> bool:
    """Tell whether a launcher was asked to start a run: Dagster writes RUN_STARTING before it asks.

    A run of `dagster job execute` or `execute_in_process` has no launcher. The process that creates it executes it.
    """
    return bool(instance.get_records_for_run(run_id, of_type=DagsterEventType.RUN_STARTING, limit=1).records)


class RunTakenError(Exception):
    """Raised when another process executes the run."""


class RunLease:
    """The lease in a process that was started for the run: a launcher started it, and signals stop it."""

    # As in ProcessRecord: this process was started for the run.
    is_dedicated = True

    def is_launched(self) -> bool:
        """Tell whether a launcher was asked for the run. Such a run is resumed when its process is lost."""
        return True

    def receive_stop(self) -> bool:
        """Return True once when the run must stop."""
        return False

    def cancel_unlaunched(self) -> bool:
        """Cancel an interrupted run if no launcher started it; tell whether that is so."""
        return False


class _SharedProcessLease(RunLease):
    """The lease in a process that was not started for the run."""

    is_dedicated = False

    def __init__(self, instance: DagsterInstance, run_id: str, record: RecordLock | None) -> None:
        self._instance = instance
        self._run_id = run_id
        self._record = record
        self._must_stop = threading.Event()
        self._has_stopped = False
        self._leave_at = float("inf")
        threading.Thread(target=self._poll, name=f"lease of run {run_id[:8]}", daemon=True).start()

    def is_launched(self) -> bool:
        return was_launched(self._instance, self._run_id)

    def receive_stop(self) -> bool:
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
        """Keep the record locked until the run has ended, or _END_TIMEOUT_S is over."""
        self._leave_at = time.monotonic() + _END_TIMEOUT_S

    def _poll(self) -> None:
        while time.monotonic() < self._leave_at:
            time.sleep(POLL_S)
            is_executing = self._leave_at == float("inf")
            try:
                run = self._instance.get_run_by_id(self._run_id)
            except Exception:  # the database may be away, or the instance was closed after the run
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
    """Hold a run's record until the run has ended; raise RunTakenError if another process holds it."""
    if holds_record(run.run_id) or instance.is_ephemeral:
        yield RunLease()
        return
    folder = _records_of(instance)
    record = RecordLock(folder, run.run_id, is_dedicated=False) if folder is not None else None
    if record is not None and not record.acquire():
        raise RunTakenError(f"Another process executes run {run.run_id}; this one ends.")
    held = _SharedProcessLease(instance, run.run_id, record)
    try:
        yield held
    finally:
        held.end()


def _records_of(instance: DagsterInstance) -> Path | None:
    """Return the folder of records of the instance's launcher; None for Dagster's own launchers, which have none."""
    records = getattr(instance.run_launcher, "records", None)
    return records if isinstance(records, Path) else None
