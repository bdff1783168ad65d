"""Interrupts ops when their run is cancelled, with any executor. executor.py sets the flag.

Dagster stops a run's process by a signal, and Python delivers signals only to the main thread. The concurrent executor
runs ops in other threads. These ops wait with the functions here, instead of `time.sleep`, and are woken at once.
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
# A thread that an op starts has no context variable of this module. A run's process has one run, so its flag applies.
_latest: list[threading.Event] = []


def _current() -> threading.Event | None:
    return _flag.get() or (_latest[-1] if _latest else None)


@contextmanager
def interruption_scope() -> Iterator[threading.Event]:
    """Yield a flag for the ops that start inside the `with` block; the executor sets it when the run must stop."""
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

    For calls that block, such as a long poll. After an interruption the call goes on in a daemon thread, and its result
    is lost.
    """
    outcome: list[tuple[bool, Any]] = []
    is_done = threading.Event()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            outcome.append((True, context.run(function, *args, **kwargs)))
        except BaseException as error:  # raised again in the caller
            outcome.append((False, error))
        is_done.set()

    threading.Thread(target=work, name="interruptible-call", daemon=True).start()
    flag = _current()
    # One thread cannot wait for `is_done` and the flag together. So check the flag every 50 ms.
    while not is_done.wait(0.05 if flag is not None else None):
        if flag is not None and flag.is_set():
            raise DagsterExecutionInterruptedError("The run was interrupted while this op waited for an answer.")
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    return value  # type: ignore[no-any-return]
