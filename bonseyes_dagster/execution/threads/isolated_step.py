"""One attempt of a step in its own process, for a step that may have ended the run's process (step_losses.py).

executor.py uses it like step_thread.py. A thread starts the process and forwards its events. If the process ends before
the step, the step fails, or is retried if its RetryPolicy allows another retry.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from dagster import DagsterEvent
from dagster_shared.error import SerializableErrorInfo

from bonseyes_dagster.execution.threads.dagster_internals import (
    DagsterExecutionInterruptedError,
    ExecuteStepArgs,
    PlanExecutionContext,
    RetryMode,
    StepFailureData,
    StepRetryData,
    UserFailureData,
    _trigger_hook,
    deserialize_value,
    serialize_value,
)
from bonseyes_dagster.execution.threads.mailbox import Mailbox
from bonseyes_dagster.execution.threads.step_thread import StepContext, StepMessage, post_events

__all__ = ["IsolatedStep"]

_POLL_S = 0.1
# From SIGTERM to SIGKILL; less than GRACE_S of the executor.
_GRACE_S = 4.0
# Limits the number of processes, because each loads Dagster and the definitions.
_slots = threading.BoundedSemaphore(max(2, os.cpu_count() or 2))


class IsolatedStep:
    """Runs an attempt of a step in its own process."""

    def __init__(self, context: StepContext, plan_context: PlanExecutionContext, mailbox: Mailbox[StepMessage]) -> None:
        self._context = context
        self._plan_context = plan_context
        self.key = context.step.key
        self._has_ended = False
        posted = (self.key, self._events(), mailbox)
        self._thread = threading.Thread(
            target=post_events, args=posted, name=f"process of step {self.key}", daemon=True
        )

    def start(self) -> None:
        """Start the thread. The mailbox gets all events, and at the end a message without an event."""
        self._thread.start()

    def _events(self) -> Iterator[DagsterEvent]:
        with self._slot():
            message = "The run lost its process while this step was in flight; the step now runs in its own process."
            yield DagsterEvent.step_worker_starting(self._context, message, metadata={})
            with ExitStack() as stack:
                reader, process = self._start_process(stack)
                for line in self._lines(reader, process):
                    event = deserialize_value(line.decode(), DagsterEvent)
                    self._has_ended |= event.is_step_success or event.is_step_failure or event.is_step_up_for_retry
                    yield event
                code = process.wait()
        if self._has_ended:
            return
        if self._is_interrupted:
            raise DagsterExecutionInterruptedError("The run was interrupted.")
        end = self._end(f"The step's process {_how_it_ended(code)}.")
        yield end
        yield from _trigger_hook(self._context, [end])

    @property
    def _is_interrupted(self) -> bool:
        return self._context.interruption.is_set()

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Wait for a free slot, and hold it during the `with` block."""
        while not _slots.acquire(timeout=_POLL_S):
            if self._is_interrupted:
                raise DagsterExecutionInterruptedError("The run was interrupted.")
        try:
            yield
        finally:
            _slots.release()

    def _start_process(self, stack: ExitStack) -> tuple[int, "subprocess.Popen[bytes]"]:
        # A file, not a pipe: a write to a full pipe would wait until the process reads it.
        arguments = os.memfd_create("step", os.MFD_CLOEXEC)
        stack.callback(os.close, arguments)
        os.write(arguments, serialize_value(self._arguments()).encode())
        os.lseek(arguments, 0, os.SEEK_SET)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, reader)
        try:
            # The process is in the process group of the run, which is killed before the run is resumed.
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "bonseyes_dagster.execution.processes.step_process",
                    str(writer),
                    str(os.getpid()),
                ],
                stdin=arguments,
                pass_fds=[writer],
            )
        finally:
            os.close(writer)
        stack.callback(_kill, process)
        return reader, process

    def _arguments(self) -> ExecuteStepArgs:
        run = self._context.dagster_run
        assert run.job_code_origin is not None  # only launched runs are resumed
        return ExecuteStepArgs(
            job_origin=run.job_code_origin,
            run_id=run.run_id,
            step_keys_to_execute=[self.key],
            instance_ref=self._context.instance.get_ref(),
            retry_mode=RetryMode.DISABLED if self._context.retry_mode.disabled else RetryMode.DEFERRED,
            known_state=self._context.get_known_state(),
        )

    def _lines(self, reader: int, process: "subprocess.Popen[bytes]") -> Iterator[bytes]:
        """Yield the lines that the process writes until it ends; stop the process when the run must stop."""
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        kill_at = float("inf")
        rest = b""
        while True:
            if self._is_interrupted and kill_at == float("inf"):
                process.send_signal(signal.SIGTERM)
                kill_at = time.monotonic() + _GRACE_S
            if time.monotonic() >= kill_at:
                process.kill()
            if not poll.poll(_POLL_S * 1000):
                # A process that the op started may still have the descriptor open.
                if process.poll() is None:
                    continue
                if not poll.poll(0):
                    return
            chunk = os.read(reader, 1 << 16)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines

    def _end(self, description: str) -> DagsterEvent:
        """Return the event for the failure of the attempt, or for a retry."""
        error = SerializableErrorInfo(message=description, stack=[], cls_name="StepProcessEnded")
        attempts, policy = self._context.previous_attempt_count, self._context.op_retry_policy
        if policy is not None and not self._context.retry_mode.disabled and attempts < policy.max_retries:
            delay_s = policy.calculate_delay(attempts + 1)
            retry = StepRetryData(error=error, seconds_to_wait=delay_s)  # type: ignore[no-untyped-call]
            return DagsterEvent.step_retry_event(self._context, retry)
        cause = UserFailureData(label="process ended", description=description)  # type: ignore[no-untyped-call]
        failure = StepFailureData(error=error, user_failure_data=cause)  # type: ignore[no-untyped-call]
        return DagsterEvent.step_failure_event(step_context=self._context, step_failure_data=failure)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
