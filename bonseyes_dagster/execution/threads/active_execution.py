"""Dagster's bookkeeping of which steps may run, able to continue where a run process that died left off."""

import time
from collections.abc import Iterator, Mapping, Sequence

from dagster import DagsterEvent, DagsterEventType, DagsterInstance

from bonseyes_dagster.execution.threads.dagster_internals import ActiveExecution

__all__ = ["ResumableExecution", "read_progress"]

_PROGRESS = {
    DagsterEventType.STEP_OUTPUT,
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.STEP_FAILURE,
    DagsterEventType.STEP_UP_FOR_RETRY,
    DagsterEventType.STEP_SKIPPED,
}


def read_progress(instance: DagsterInstance, run_id: str) -> list[DagsterEvent]:
    """Return what earlier processes of a run achieved, oldest first; outputs of attempts cut short are left out.

    Such a step runs again and gives its outputs again; taken twice, a dynamic output would be mapped twice.
    """
    entries = instance.all_logs(run_id, of_type=_PROGRESS)
    events = [entry.dagster_event for entry in entries if entry.dagster_event and entry.dagster_event.step_key]
    kept: list[DagsterEvent] = []
    has_ended: set[str | None] = set()
    given: set[object] = set()
    for event in reversed(events):
        if event.is_successful_output:
            handle = event.step_output_data.step_output_handle
            if event.step_key not in has_ended or handle in given:
                continue
            given.add(handle)
        else:
            has_ended.add(event.step_key)
        kept.append(event)
    return kept[::-1]


class ResumableExecution(ActiveExecution):
    """Takes the events of an earlier process as if this one had seen them happen."""

    def replay(self, events: Sequence[DagsterEvent]) -> None:
        """Bring every step to where `events` left it; what is left to do is then ready or pending as usual.

        `rebuild_from_events` of the superclass obeys limits and retry delays while it replays, and so can find a step
        that has ended to be one that it has not let start. Here a step was started because it ended.
        """
        for event in events:
            key = str(event.step_key)
            # Looks at every pending step, so not for each event.
            if event.is_step_skipped or self._new_dynamic_mappings:
                self._update()
            if event.is_step_skipped:
                if key in self._pending_skip:
                    self._pending_skip.remove(key)
                    self._in_flight.add(key)
                    self._skip_for_dynamic_outputs(self.get_step_by_key(key))
                    self.mark_skipped(key)
                continue
            self._put_in_flight(key)
            self.handle_event(event)
        self._update()

    def _put_in_flight(self, key: str) -> None:
        if key in self._in_flight:
            return
        self._waiting_to_retry.pop(key, None)
        if key in self._executable:
            self._executable.remove(key)
        self._pending.pop(key, None)
        self._in_flight.add(key)
        self._prep_for_dynamic_outputs(self.get_step_by_key(key))

    def count_losses(self, losses: Mapping[str, int]) -> None:
        """Count the losses of the run's process as attempts of the steps that were in flight and are to run again."""
        for key, count in losses.items():
            for _ in range(count if key in self._executable or key in self._waiting_to_retry else 0):
                self._retry_state.mark_attempt(key)

    def wait_s(self, longest_s: float) -> float:
        """Return how long the executor may sleep before there is something new by itself; ask after starting steps."""
        if self._pending_skip or self._pending_abandon:
            return 0.0
        due_s = [at_time - time.time() for at_time in self._waiting_to_retry.values()]
        return max(0.0, min([longest_s, *due_s]))

    def failures(self, events: Sequence[DagsterEvent]) -> Iterator[DagsterEvent]:
        """Yield the failures among `events`, which a resumed run must not forget when it ends."""
        return (event for event in events if event.is_step_failure)
