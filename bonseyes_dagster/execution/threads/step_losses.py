"""Which steps may have ended a run's process: read from the run's log when another process takes the run up.

A process that is lost is an attempt of each step that was in flight. A step that was in flight at two losses is a
suspect: from then on executor.py runs it in a process of its own (isolated_step.py), and what ends that process is the
step's doing. Tool ops are no suspects: they only wait on HTTP, and attach to what their tools make.
"""

from dagster import DagsterEventType, DagsterInstance

from bonseyes_dagster.execution.threads.dagster_internals import ExecutionStep
from bonseyes_dagster.tags import CONTAINER_TAG

__all__ = ["INTERRUPTED", "RESUMING", "SUSPECT_AFTER", "is_tool_step", "read_losses"]

# In whose messages a process says that it took a run up, and that it ends without having finished its steps.
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
    """Return how often each step was in flight when the run lost its process, SUSPECT_AFTER at most.

    A suspect has a process of its own. A later loss of the run's process is not its doing.
    """
    losses: dict[str, int] = {}
    in_flight: set[str] = set()

    def lose() -> None:
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
            lose()
    lose()
    return losses


def is_tool_step(step: ExecutionStep) -> bool:
    """Tell whether a step's op is one of `tool_op`."""
    return CONTAINER_TAG in step.tags
