"""What is printed belongs to the step that prints it, while steps begin and end."""

import contextvars
import itertools
import sys
from pathlib import Path

from bonseyes_dagster.orchestration import compute_logs
from bonseyes_dagster.orchestration.compute_logs import StepComputeLogManager


def print_while_it_ends(manager, key, moment):
    """Print, outside of the one step, which ends before that instruction of the search for it; tell whether it did."""
    context = contextvars.copy_context()
    step = manager.capture_logs(key)
    context.run(step.__enter__)
    moments = itertools.count()
    has_ended = False

    def end() -> None:
        nonlocal has_ended
        has_ended = True
        context.run(step.__exit__, None, None, None)

    def trace(frame, event, _):
        if frame.f_code is not compute_logs._target.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and next(moments) == moment:
            end()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        print("said")
    finally:
        sys.settrace(before)
        ended = has_ended
        if not ended:
            end()
    return ended


def test_a_lone_step_may_end_while_a_thread_prints(tmp_path: Path, capsys):
    """At any moment: what is printed is the step's or nobody's, and never an error."""
    manager = StepComputeLogManager(str(tmp_path))
    for moment in itertools.count():
        key = ["run", "compute_logs", str(moment)]
        ended = print_while_it_ends(manager, key, moment)
        assert manager.get_log_data(key).stdout.decode() + capsys.readouterr().out == "said\n"
        if not ended:
            break
    assert moment > 10
