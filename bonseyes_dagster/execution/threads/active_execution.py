"""Dagster's bookkeeping of the steps of a run, which can also continue after the loss of the run's process."""

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
    """Return the events of steps from earlier processes of a run, oldest first, without outputs of unfinished attempts.

    Such a step runs again and yields its outputs again. With both outputs, a dynamic output would be mapped twice.
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
    """Replays the events of an earlier process, as if they had happened in this process."""

    def replay(self, events: Sequence[DagsterEvent]) -> None:
        """Set every step to its state after `events`; the steps that are left are then ready or pending.

        `rebuild_from_events` of the superclass obeys limits and retry delays during the replay. So it can meet the end
        of a step that it has not let start. Here, a step that has ended counts as started.
        """
        for event in events:
            key = str(event.step_key)
            # An update visits every pending step, so do not call it for each event.
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
        """Count the losses of the run's process as attempts of the steps that must run again."""
        for key, count in losses.items():
            for _ in range(count if key in self._executable or key in self._waiting_to_retry else 0):
                self._retry_state.mark_attempt(key)

    def wait_s(self, longest_s: float) -> float:
        """Return how long the executor may sleep until a retry is due; call it after steps are started."""
        if self._pending_skip or self._pending_abandon:
            return 0.0
        due_s = [at_time - time.time() for at_time in self._waiting_to_retry.values()]
        return max(0.0, min([longest_s, *due_s]))

    def failures(self, events: Sequence[DagsterEvent]) -> Iterator[DagsterEvent]:
        """Yield the failures among `events`; a resumed run needs them to end as failed."""
        return (event for event in events if event.is_step_failure)
