"""Finds the steps that may have ended a run's process. executor.py calls it when a new process resumes the run.

It reads the run's log. A loss of the process counts as an attempt of each step in flight. A step that was in flight at
two losses is a suspect: from then on executor.py runs it in its own process (isolated_step.py). If that process ends,
the step is the cause. Tool ops are never suspects: they only wait on HTTP, and attach to artifacts that their tools
make.
"""

from dagster import DagsterEventType, DagsterInstance

from bonseyes_dagster.execution.threads.dagster_internals import ExecutionStep
from bonseyes_dagster.tags import CONTAINER_TAG

__all__ = ["INTERRUPTED", "RESUMING", "SUSPECT_AFTER", "is_tool_step", "read_losses"]

# These messages begin so. The first is from a process that resumes a run, the second from one that leaves steps
# unfinished.
RESUMING = "Resuming the run in a new process"
INTERRUPTED = "Interrupted; the steps in flight are left as they are"
SUSPECT_AFTER = 2

_STARTS = {DagsterEventType.STEP_START, DagsterEventType.STEP_RESTARTED}
_ENDS = {
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.STEP_FAILURE,
    DagsterEventType.STEP_UP_FOR_RETRY,
    DagsterEventType.STEP_SKIPPED,
}


def read_losses(instance: DagsterInstance, run_id: str) -> dict[str, int]:
    """Return for each step how often it was in flight when the run lost its process, at most SUSPECT_AFTER.

    A suspect has its own process, so it is not the cause of a later loss of the run's process.
    """
    losses: dict[str, int] = {}
    in_flight: set[str] = set()

    def count_loss() -> None:
        for key in in_flight:
            losses[key] = min(losses.get(key, 0) + 1, SUSPECT_AFTER)
        in_flight.clear()

    for entry in instance.all_logs(run_id, of_type={DagsterEventType.ENGINE_EVENT, *_STARTS, *_ENDS}):
        event = entry.dagster_event
        if event is None:
            continue
        message = event.message or ""
        if event.event_type in _STARTS and event.step_key:
            in_flight.add(event.step_key)
        elif event.event_type in _ENDS and event.step_key:
            in_flight.discard(event.step_key)
        elif message.startswith(INTERRUPTED):
            in_flight.clear()
        elif message.startswith(RESUMING):
            count_loss()
    count_loss()
    return losses


def is_tool_step(step: ExecutionStep) -> bool:
    """Tell whether `tool_op` made the op of a step."""
    return CONTAINER_TAG in step.tags
