"""A queue of messages from steps. The executor's main thread sleeps in it until a message or a signal arrives."""

import contextlib
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A queue whose reader also wakes when its process gets a signal.

    `queue.get` does not return on a signal whose handler only sets a flag, such as Dagster's handler.
    """

    def __init__(self) -> None:
        self._messages: deque[T] = deque()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        self._is_closed = False
        self._lock = threading.Lock()
        self._previous_wakeup_fd: int | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous_wakeup_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._previous_wakeup_fd is not None:
            signal.set_wakeup_fd(self._previous_wakeup_fd)
        with self._lock:  # a thread that was left behind may still write
            self._is_closed = True
            os.close(self._reader)
            os.close(self._writer)

    def put(self, message: T) -> None:
        """Add a message; any thread may call this."""
        self._messages.append(message)
        with self._lock:
            if not self._is_closed:
                with contextlib.suppress(BlockingIOError):  # a full pipe wakes the reader as well
                    os.write(self._writer, b"\0")

    def wait(self, timeout_s: float) -> Iterator[T]:
        """Sleep until a message, a signal or the timeout; then yield all messages, possibly none."""
        if not self._messages:
            self._poll.poll(max(0, int(timeout_s * 1000)))
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 65536)
        while self._messages:
            yield self._messages.popleft()
