"""One attempt of a step in its own thread. executor.py starts it and reads its messages from the mailbox."""

import asyncio
import contextvars
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import Any, NamedTuple

from dagster import DagsterEvent, RetryRequested

from bonseyes_dagster.execution.threads.dagster_internals import (
    DagsterExecutionInterruptedError,
    ExecutionStep,
    KnownExecutionState,
    PlanExecutionContext,
    StepExecutionContext,
    _handle_compute_log_setup_error,
    _handle_compute_log_teardown_error,
    _trigger_hook,
    core_dagster_event_sequence_for_step,
    create_compute_log_file_key,
    dagster_event_sequence_for_step,
)
from bonseyes_dagster.execution.threads.mailbox import Mailbox

__all__ = ["StepContext", "StepMessage", "StepThread", "post_events"]

_running_step: contextvars.ContextVar[str | None] = contextvars.ContextVar("running_step", default=None)


class StepMessage(NamedTuple):
    """A message from a step: an event, or without an event the end of its thread, with the error if there was one."""

    key: str
    event: DagsterEvent | None
    error: BaseException | None = None


def post_events(key: str, events: Iterator[DagsterEvent], mailbox: Mailbox[StepMessage]) -> None:
    """Put each event of a step into the mailbox, and at the end a message without an event."""
    error: BaseException | None = None
    try:
        for event in events:
            mailbox.put(StepMessage(key, event))
    except BaseException as raised:  # the main thread decides the consequence for the run
        error = raised
    mailbox.put(StepMessage(key, None, error))


class StepContext(StepExecutionContext):
    """Dagster's step context, with its own event loop and interruption: concurrent steps must not share them."""

    interruption: threading.Event

    @classmethod
    def for_thread(
        cls,
        plan_context: PlanExecutionContext,
        step: ExecutionStep,
        known_state: KnownExecutionState,
        interruption: threading.Event,
    ) -> "StepContext":
        """Return the same context as `plan_context.for_step`, for a thread."""
        context = cls(
            plan_data=plan_context.plan_data,
            execution_data=plan_context._execution_data,
            log_manager=plan_context.log.with_tags(**step.logging_tags),
            step=step,
            output_capture=plan_context.output_capture,
            known_state=known_state,
            event_loop=None,
        )
        context.interruption = interruption
        return context

    @cached_property
    def _own_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Return this step's own loop: two asynchronous ops cannot run in one loop at the same time."""
        return self._own_loop

    @property
    def step_launcher(self) -> Any:
        """Return the object that runs the step: the user's launcher if there is one, else this context."""
        return super().step_launcher or self

    def launch_step(self, _context: StepExecutionContext) -> Iterator[DagsterEvent]:
        """Run the op; an interruption must not become a retry.

        For Dagster, an interruption inside an op with a RetryPolicy is a failure of the op, which it retries. A
        cancelled run would keep a step that waits for a retry.
        """
        try:
            yield from core_dagster_event_sequence_for_step(self)
        except RetryRequested as request:
            if not self.interruption.is_set():
                raise
            raise DagsterExecutionInterruptedError("The run was interrupted; this step is not retried.") from request

    def close(self) -> None:
        """Close the step's event loop."""
        if "_own_loop" in self.__dict__:
            self._own_loop.run_until_complete(self._own_loop.shutdown_asyncgens())
            self._own_loop.close()


class StepThread:
    """Runs an attempt of a step, with its log capture and its hooks."""

    def __init__(
        self,
        context: StepContext,
        plan_context: PlanExecutionContext,
        mailbox: Mailbox[StepMessage],
        *,
        captures_logs: bool,
        is_alone: Callable[[], bool],
    ) -> None:
        self._context = context
        self._plan_context = plan_context
        self._mailbox = mailbox
        self._captures_logs = captures_logs
        self.key = context.step.key
        _filter_records(context, is_alone)
        variables = contextvars.copy_context()
        self._thread = threading.Thread(target=variables.run, args=(self._run,), name=f"step {self.key}", daemon=True)

    def start(self) -> None:
        """Start the thread. The mailbox gets all events, and at the end a message without an event."""
        self._thread.start()

    def _run(self) -> None:
        _running_step.set(self.key)
        post_events(self.key, self._events(), self._mailbox)

    def _events(self) -> Iterator[DagsterEvent]:
        events: list[DagsterEvent] = []
        with ExitStack() as capture:
            if self._captures_logs:
                yield from self._capture_logs(capture)
            try:
                for event in dagster_event_sequence_for_step(self._context):
                    events.append(event)
                    yield event
            finally:
                self._context.close()
            if not self._context.interruption.is_set():
                yield from _trigger_hook(self._context, events)
            try:
                capture.close()
            except Exception:
                yield from _handle_compute_log_teardown_error(self._plan_context, sys.exc_info())

    def _capture_logs(self, capture: ExitStack) -> Iterator[DagsterEvent]:
        """Give this attempt its own log; a retry gets another log, as with Dagster's executors."""
        manager = self._plan_context.instance.compute_log_manager
        key = manager.build_log_key_for_run(self._plan_context.run_id, create_compute_log_file_key())  # type: ignore[no-untyped-call]
        try:
            log_context = capture.enter_context(manager.capture_logs(key))
            yield DagsterEvent.capture_logs(self._plan_context, [self.key], key, log_context)
        except Exception:
            yield from _handle_compute_log_setup_error(self._plan_context, sys.exc_info())


def _filter_records(context: StepContext, is_alone: Callable[[], bool]) -> None:
    """Let the step's handler accept only this step's records from loggers that all steps share.

    While an op runs, Dagster adds the step's handler to Python's loggers. With concurrent steps, each record would go
    to all of them. The step of a record from a thread that an op started is unknown. Such a record goes to a step only
    if no other step runs. A record of `context.log` (the logger `dagster`) belongs to the step in any thread.
    """
    for handler in context.log.handlers:
        accepts = handler.filter

        def filter_record(
            record: logging.LogRecord,
            accepts: Callable[[logging.LogRecord], Any] = accepts,
            key: str = context.step.key,
        ) -> Any:
            running = _running_step.get()
            is_ours = record.name == "dagster" or running == key or (running is None and is_alone())
            return is_ours and accepts(record)

        handler.filter = filter_record  # type: ignore[method-assign]
