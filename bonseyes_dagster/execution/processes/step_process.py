"""The process of one step that may end its process; isolated_step.py starts it.

`python -m bonseyes_dagster.execution.processes.step_process EVENTS PARENT`: EVENTS is the descriptor to which the
events of the step go, a line of JSON each, PARENT is the run's process. Standard input has Dagster's ExecuteStepArgs.
It does what `dagster api execute_step` does: it writes the events to Dagster's storage itself.
"""

import os
import signal
import sys

from bonseyes_dagster.system.prctl import end_with_parent

__all__ = ["main"]


def main() -> None:
    """Execute one step; end with the process that started this one."""
    events, parent = (int(argument) for argument in sys.argv[1:])
    end_with_parent(parent, signal.SIGKILL)
    _execute(events, sys.stdin.read())
    sys.stdout.flush()
    sys.stderr.flush()
    # Without Python's finalisation, so that threads which an op left behind do not keep it.
    os._exit(0)


def _execute(events: int, arguments: str) -> None:
    # After the process is bound to its parent: this takes seconds.
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
