"""The process of one step that may end its process; isolated_step.py starts it.

Command: `python -m bonseyes_dagster.execution.processes.step_process EVENTS PARENT`. EVENTS is a file descriptor; the
process writes each event of the step to it as one line of JSON. PARENT is the pid of the run's process. Standard input
has Dagster's ExecuteStepArgs. Like `dagster api execute_step`, the process itself writes the events to Dagster's
storage.
"""

import os
import signal
import sys

from bonseyes_dagster.system.prctl import end_with_parent

__all__ = ["main"]


def main() -> None:
    """Execute one step; the kernel kills this process when the run's process ends."""
    events, parent = (int(argument) for argument in sys.argv[1:])
    end_with_parent(parent, signal.SIGKILL)
    _execute(events, sys.stdin.read())
    sys.stdout.flush()
    sys.stderr.flush()
    # Without Python's finalisation, so that threads which an op left behind do not delay the exit.
    os._exit(0)


def _execute(events: int, arguments: str) -> None:
    # Imported after end_with_parent(), because the import takes seconds.
    from dagster import DagsterInstance

    from bonseyes_dagster.execution.processes.dagster_internals import (
        ExecuteStepArgs,
        _execute_step_command_body,
        capture_interrupts,
        deserialize_value,
        serialize_value,
    )
    from bonseyes_dagster.execution.threads.step_streams import route_streams

    args = deserialize_value(arguments, ExecuteStepArgs)
    assert args.instance_ref is not None  # isolated_step.py gives one
    route_streams()
    with (
        capture_interrupts(),
        os.fdopen(events, "w", encoding="utf-8") as stream,
        DagsterInstance.from_ref(args.instance_ref) as instance,
    ):
        run = instance.get_run_by_id(args.run_id)
        if run is None:  # deleted
            return
        for event in _execute_step_command_body(args, instance, run):
            stream.write(serialize_value(event) + "\n")
            stream.flush()


if __name__ == "__main__":
    main()
