"""Handles lost runs: runs whose process is gone, and ended runs that still have a record.

`processes/run_keeper.py` implements it with processes, `containers/run_watch.py` with containers.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from bonseyes_dagster.execution.runs.dagster_internals import GRPC_INFO_TAG, RunRecord
from bonseyes_dagster.execution.runs.process_record import read_record, remove_record
from bonseyes_dagster.execution.runs.run_end import Withdraw, may_have_left_work
from bonseyes_dagster.execution.runs.run_recovery import recover_run

__all__ = ["ORPHAN_AGE_S", "LostRunHandler", "age_s", "is_for_a_launcher"]

logger = logging.getLogger(__name__)

# A launcher reports a run as starting before it asks for a process. Within this time the process may still come.
ORPHAN_AGE_S = 30.0
_IN_PROGRESS = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


class LostRunHandler(ABC):
    """Recovers lost runs, cancels the work that ended runs left in tools, and removes the records of ended runs."""

    def __init__(self, instance: DagsterInstance, folder: Path, withdraw: Withdraw) -> None:
        self._instance = instance
        self._folder = folder
        self._withdraw = withdraw

    @abstractmethod
    def check_runs(self) -> None:
        """Look for lost runs once, and handle each of them."""

    @abstractmethod
    def start(self, run_id: str, is_resumed: bool) -> None:
        """Start a new process for a run."""

    @abstractmethod
    def _begin_withdrawal(self, run_id: str) -> None:
        """Start `_withdraw_and_forget` in the background."""

    def _runs_in_progress(self) -> Sequence[RunRecord]:
        return self._instance.get_run_records(RunsFilter(statuses=_IN_PROGRESS), limit=1000)

    def _recover(self, run_id: str, cause: str, *, has_just_ended: bool = False) -> bool:
        """Resume a run without process, or end it; tell whether it gets a new process (run_recovery.py)."""
        old = {"had_record": read_record(self._folder, run_id)[0] is not None, "has_just_ended": has_just_ended}
        return recover_run(self._instance, run_id, cause, self.start, **old)

    def _forget(self, run_id: str, run: DagsterRun | None) -> None:
        """Remove the record of an ended run; if tools may still work for the run, cancel their work first."""
        if may_have_left_work(run):
            self._begin_withdrawal(run_id)
        else:
            remove_record(self._folder, run_id)

    def _withdraw_and_forget(self, instance: DagsterInstance, run_id: str) -> bool:
        """Cancel the work that an ended run left, and remove its record; False if a later check must try again."""
        if not self._withdraw(instance, run_id):
            return False
        remove_record(self._folder, run_id)
        return True

    @contextmanager
    def _log_errors(self, run_id: str) -> Iterator[None]:
        """Log an error about one run, so that the other runs are still handled."""
        try:
            yield
        except Exception:  # the database or the engine may be away
            logger.exception("Run %s cannot be checked; the next check tries again.", run_id)


def is_for_a_launcher(run: DagsterRun) -> bool:
    """Tell whether a launcher starts this run; a code server or the calling process executes other runs."""
    return run.remote_job_origin is not None and GRPC_INFO_TAG not in run.tags


def age_s(entry: RunRecord) -> float:
    """Return the seconds since Dagster last updated a run."""
    return time.time() - entry.update_timestamp.timestamp()
