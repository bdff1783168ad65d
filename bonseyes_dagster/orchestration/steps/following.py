"""Follows the artifact of a step until it is final. `step.py` calls `follow`.

A separate thread makes all HTTP requests, so the step reacts at once when its run is cancelled.
"""

import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dagster import DagsterExecutionInterruptedError, Failure, OpExecutionContext

from bonseyes_dagster.backoff import Backoff
from bonseyes_dagster.errors import (
    BonseyesError,
    ConnectionFailedError,
    QueueFullError,
    StorageFullError,
    UnavailableError,
)
from bonseyes_dagster.execution.threads.interruption import run_is_interrupted
from bonseyes_dagster.model import Status
from bonseyes_dagster.orchestration.steps.artifact_request import ArtifactRequest

__all__ = ["TRANSIENT", "follow"]

# These errors may pass: the step waits and tries again.
TRANSIENT = (ConnectionFailedError, UnavailableError, QueueFullError, StorageFullError)
PATIENCE_S = 60.0
TICK_S = 2.0  # between two reads of progress and log; the end is noticed at once
INTERRUPT_S = 0.1
SENDING_S = 4.0  # less than the executor's GRACE_S
PROGRESS_S = 15.0  # between two progress lines in Dagster's log
LOG_LIMIT_BYTES = 16_384  # of a tool's output in one event of Dagster's log; the step's stdout has more
COPY_LIMIT_BYTES = 2**24  # of a tool's output in the step's stdout; the artifact's log has all of it

_T = TypeVar("_T")


def follow(context: OpExecutionContext, request: ArtifactRequest) -> Status:
    """Create the artifact, pass on its log and progress, and return its final status.

    An interruption of the step cancels the artifact and is raised again.
    """
    reports: queue.SimpleQueue[Status | bytes | BaseException] = queue.SimpleQueue()
    watcher = _Watcher(request, reports)
    threading.Thread(target=watcher.run, daemon=True, name=f"watch {request.artifact.name}").start()
    step_log = _StepLog(context, request)
    try:
        while True:
            if run_is_interrupted():
                raise DagsterExecutionInterruptedError()
            try:
                item = reports.get(timeout=INTERRUPT_S)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, bytes):
                step_log.write(item)
            else:
                step_log.note(item)
                if item.is_final:
                    step_log.close()
                    return item
    except (DagsterExecutionInterruptedError, KeyboardInterrupt, SystemExit, GeneratorExit):
        context.log.info(f"Cancelling {request.artifact.url}")
        request.cancel()
        # The request may be in flight and still create the artifact. Only this process would then cancel it: wait.
        watcher.is_sent.wait(SENDING_S)
        raise
    finally:
        request.stop.set()


class _Watcher:
    """Sends the request, then reports log and status; the final status comes last, after the whole log."""

    def __init__(self, request: ArtifactRequest, reports: "queue.SimpleQueue[Status | bytes | BaseException]") -> None:
        self._request = request
        self._reports = reports
        self._offset = 0
        self.is_sent = threading.Event()

    def run(self) -> None:
        """Report until the artifact is final or the step has stopped; report an error, too."""
        request = self._request
        try:
            self._send()
            while not request.stop.is_set():
                status = _patiently(lambda: request.artifact.status(wait_s=TICK_S), request.stop)
                if status.started or status.is_final:
                    _patiently(self._report_log, request.stop)
                self._reports.put(status)
                if status.is_final:
                    return
        except (BonseyesError, Failure) as error:
            self._reports.put(error)

    def _send(self) -> None:
        try:
            _patiently(self._request.send, self._request.stop)
            if self._request.stop.is_set():  # interrupted while the request was in flight
                self._request.cancel()
        finally:
            self.is_sent.set()

    def _report_log(self) -> None:
        artifact = self._request.artifact
        if self._offset > COPY_LIMIT_BYTES:
            return
        for chunk in artifact.iter_log(self._offset, patience_s=0):
            self._offset += len(chunk)
            self._reports.put(chunk)
            if self._offset > COPY_LIMIT_BYTES:
                self._reports.put(
                    f"\n[...] This copy of the log ends here; the log itself is {artifact.url}/log\n".encode()
                )
                return


def _patiently(call: Callable[[], _T], stop: threading.Event) -> _T:
    """Return the result of `call`; retry for a minute while the container is away or has no room."""
    deadline = time.monotonic() + PATIENCE_S
    backoff = Backoff(0.2, 5.0)
    while True:
        try:
            return call()
        except TRANSIENT:
            pause_s = backoff.take()
            if stop.is_set() or time.monotonic() + pause_s > deadline:
                raise
            stop.wait(pause_s)


class _StepLog:
    """Writes the tool's output to the step's stdout, and its end, with the progress, to Dagster's log."""

    def __init__(self, context: OpExecutionContext, request: ArtifactRequest) -> None:
        self._context = context
        self._url = request.artifact.url
        self._phase = ""
        self._noted = time.monotonic()
        self._rest = b""

    def write(self, chunk: bytes) -> None:
        """Pass on whole lines."""
        whole, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
        self._pass_on(whole + newline)

    def close(self) -> None:
        """Pass on the last line if it has no line end."""
        if self._rest:
            self._pass_on(self._rest + b"\n")
            self._rest = b""

    def _pass_on(self, lines: bytes) -> None:
        if not lines:
            return
        sys.stdout.write(lines.decode(errors="replace"))
        sys.stdout.flush()
        shown = lines.rstrip(b"\n")
        if len(shown) > LOG_LIMIT_BYTES:
            shown = b"[...] the step's stdout has more\n" + shown[-LOG_LIMIT_BYTES:].partition(b"\n")[2]
        self._context.log.info(shown.decode(errors="replace"))

    def note(self, status: Status) -> None:
        """Log a change of phase at once, and progress every PROGRESS_S seconds."""
        is_changed = status.phase != self._phase
        if not is_changed and time.monotonic() - self._noted < PROGRESS_S:
            return
        progress = _progress(status)
        if is_changed or progress:
            self._phase, self._noted = status.phase, time.monotonic()
            self._context.log.info(f"{self._url} is {status.phase}{progress}")


def _progress(status: Status) -> str:
    if status.position:
        return f" at position {status.position}"
    progress = status.progress
    if progress.done is None:
        return ""
    total = f" of {progress.total:g}" if progress.total is not None else ""
    return f": {progress.done:g}{total} {progress.unit or ''} {progress.message or ''}".rstrip()
