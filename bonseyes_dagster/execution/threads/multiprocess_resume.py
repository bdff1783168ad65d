"""Resumes a run of Dagster's multiprocess executor: a new process continues where the old process stopped.

run_worker.py calls it. Without it, Dagster's executor would execute every step again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from dagster import DagsterEvent, DagsterInstance

from bonseyes_dagster.execution.threads.active_execution import ResumableExecution, read_progress
from bonseyes_dagster.execution.threads.dagster_internals import dagster_multiprocess

# Dagster's executor looks up its bookkeeping class in this module when it starts.
multiprocess: Any = dagster_multiprocess

__all__ = ["resume_multiprocess"]

_INTERRUPTED = {"DagsterExecutionInterruptedError", "KeyboardInterrupt"}


@contextmanager
def resume_multiprocess(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    """Make Dagster's multiprocess executor start from the progress of earlier processes, inside the `with` block."""
    original = multiprocess.ActiveExecution

    class _Resumed(_ResumedExecution):
        def __enter__(self) -> Self:
            super().__enter__()
            # The dead process cannot release its slots in pools.
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
            self.load_progress(read_progress(instance, run_id))
            return self

    multiprocess.ActiveExecution = _Resumed
    try:
        yield
    finally:
        multiprocess.ActiveExecution = original


class _ResumedExecution(ResumableExecution):
    """Yields the failures of earlier processes to the executor, so that the run ends as failed."""

    _failures: list[DagsterEvent]

    def load_progress(self, progress: Sequence[DagsterEvent]) -> None:
        kept = [event for event in progress if not _is_interruption(event)]
        self._failures = list(self.failures(kept))
        self.replay(kept)

    @property
    def is_complete(self) -> bool:
        return not self._failures and super().is_complete

    def plan_events_iterator(self, job_context: Any) -> Iterator[DagsterEvent]:
        failures, self._failures = self._failures, []
        yield from failures
        yield from super().plan_events_iterator(job_context)


def _is_interruption(event: DagsterEvent) -> bool:
    """Tell whether a step failed only because the process of the run was stopped."""
    if not event.is_step_failure:
        return False
    error = event.step_failure_data.error
    while error is not None:
        if error.cls_name in _INTERRUPTED:
            return True
        error = error.cause
    return False
