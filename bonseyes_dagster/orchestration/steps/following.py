"""How a step follows its artifact: all HTTP in a thread of its own, so that a cancelled run is heard of at once."""

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
from bonseyes_dagster.orchestration.steps.order import Order

__all__ = ["TRANSIENT", "follow"]

# May pass by itself, so it is waited for and then retried.
TRANSIENT = (ConnectionFailedError, UnavailableError, QueueFullError, StorageFullError)
PATIENCE_S = 60.0
TICK_S = 2.0  # between looks at progress and log; the end is seen at once
INTERRUPT_S = 0.1
PLACING_S = 4.0  # of the executor's GRACE_S
PROGRESS_S = 15.0  # between lines about progress in Dagster's own log
LOG_LIMIT_BYTES = 16_384  # of a tool's output in one event of Dagster's log; the step's stdout has more of it
COPY_LIMIT_BYTES = 2**24  # of a tool's output in the step's stdout; the artifact has all of it

_T = TypeVar("_T")


def follow(context: OpExecutionContext, order: Order) -> Status:
    """Return the artifact's final status. All HTTP is in a thread of its own, so that an interrupt is heard at once."""
    news: queue.SimpleQueue[Status | bytes | BaseException] = queue.SimpleQueue()
    watcher = _Watcher(order, news)
    threading.Thread(target=watcher.run, daemon=True, name=f"watch {order.artifact.name}").start()
    journal = _Journal(context, order)
    try:
        while True:
            if run_is_interrupted():
                raise DagsterExecutionInterruptedError()
            try:
                item = news.get(timeout=INTERRUPT_S)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, bytes):
                journal.write(item)
            else:
                journal.note(item)
                if item.is_final:
                    journal.close()
                    return item
    except (DagsterExecutionInterruptedError, KeyboardInterrupt, SystemExit, GeneratorExit):
        context.log.info(f"Cancelling {order.artifact.url}")
        order.cancel()
        # A request that is on its way may make the artifact yet, and with this process goes who would cancel it.
        watcher.has_placed.wait(PLACING_S)
        raise
    finally:
        order.stop.set()


class _Watcher:
    """Places the order, then reports log and status; the final status comes last, after all of the log."""

    def __init__(self, order: Order, news: "queue.SimpleQueue[Status | bytes | BaseException]") -> None:
        self._order = order
        self._news = news
        self._offset = 0
        self.has_placed = threading.Event()

    def run(self) -> None:
        """Report until the artifact is final or nobody listens any more; an error is reported, too."""
        order = self._order
        try:
            self._place()
            while not order.stop.is_set():
                status = _patiently(lambda: order.artifact.status(wait_s=TICK_S), order.stop)
                if status.started or status.is_final:
                    _patiently(self._report_log, order.stop)
                self._news.put(status)
                if status.is_final:
                    return
        except (BonseyesError, Failure) as error:
            self._news.put(error)

    def _place(self) -> None:
        try:
            _patiently(self._order.place, self._order.stop)
            if self._order.stop.is_set():  # interrupted while the order was on its way
                self._order.cancel()
        finally:
            self.has_placed.set()

    def _report_log(self) -> None:
        artifact = self._order.artifact
        if self._offset > COPY_LIMIT_BYTES:
            return
        for chunk in artifact.iter_log(self._offset, patience_s=0):
            self._offset += len(chunk)
            self._news.put(chunk)
            if self._offset > COPY_LIMIT_BYTES:
                self._news.put(
                    f"\n[...] This copy of the log ends here; the log itself is {artifact.url}/log\n".encode()
                )
                return


def _patiently(call: Callable[[], _T], stop: threading.Event) -> _T:
    """Return what `call` returns, asking again for a minute while the container is away or has no room."""
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


class _Journal:
    """Writes what the tool prints to the step's stdout, and the gist of it, with progress, to Dagster's log."""

    def __init__(self, context: OpExecutionContext, order: Order) -> None:
        self._context = context
        self._url = order.artifact.url
        self._phase = ""
        self._noted = time.monotonic()
        self._rest = b""

    def write(self, chunk: bytes) -> None:
        """Pass whole lines on."""
        whole, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
        self._pass_on(whole + newline)

    def close(self) -> None:
        """Pass on what is left without a line end."""
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
        """Tell a change of phase at once, and progress now and then."""
        is_new = status.phase != self._phase
        if not is_new and time.monotonic() - self._noted < PROGRESS_S:
            return
        progress = _progress(status)
        if is_new or progress:
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
