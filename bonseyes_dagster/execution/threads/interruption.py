"""How an op learns that its run is being cancelled, under whichever executor it runs; executor.py raises the flag.

Dagster tells a run process to stop by a signal, and Python hands signals to the main thread only. Ops that the
concurrent executor runs live in other threads: they wait here instead of in `time.sleep`, and are woken at once.
"""

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from bonseyes_dagster.execution.threads.dagster_internals import (
    DagsterExecutionInterruptedError,
    check_captured_interrupt,
)

__all__ = ["interruptible_call", "interruptible_wait", "interruption_scope", "run_is_interrupted"]

P = ParamSpec("P")
T = TypeVar("T")

_flag: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("interruption", default=None)
# Threads that an op starts by itself have no context of ours; a run process has one run, so its flag is theirs.
_latest: list[threading.Event] = []


def _current() -> threading.Event | None:
    return _flag.get() or (_latest[-1] if _latest else None)


@contextmanager
def interruption_scope() -> Iterator[threading.Event]:
    """Make a flag that ops started within see; the executor sets it when the run is to stop."""
    flag = threading.Event()
    token = _flag.set(flag)
    _latest.append(flag)
    try:
        yield flag
    finally:
        _latest.remove(flag)
        _flag.reset(token)


def run_is_interrupted() -> bool:
    """Tell whether this op's run is being cancelled."""
    flag = _current()
    return flag.is_set() if flag is not None else check_captured_interrupt()


def interruptible_wait(timeout_s: float) -> None:
    """Sleep; raise DagsterExecutionInterruptedError as soon as the run is cancelled.

    Under Dagster's own executors an op is in the main thread, where Dagster's signal handler raises the same error.
    """
    flag = _current() or threading.Event()
    if flag.wait(timeout_s):
        raise DagsterExecutionInterruptedError("The run was interrupted while this op waited.")


def interruptible_call(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `function(...)`, or raise DagsterExecutionInterruptedError as soon as the run is cancelled.

    For calls that block, such as a long poll: the call goes on in a daemon thread whose result nobody takes.
    """
    outcome: list[tuple[bool, Any]] = []
    wakened = threading.Event()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            outcome.append((True, context.run(function, *args, **kwargs)))
        except BaseException as error:  # carried over to the caller, whatever it is
            outcome.append((False, error))
        wakened.set()

    threading.Thread(target=work, name="interruptible-call", daemon=True).start()
    flag = _current()
    # A flag set by another thread cannot be waited on together with `wakened`; 50 ms is what cancelling may take.
    while not wakened.wait(0.05 if flag is not None else None):
        if flag is not None and flag.is_set():
            raise DagsterExecutionInterruptedError("The run was interrupted while this op waited for an answer.")
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    return value  # type: ignore[no-any-return]
