"""Let the worker wait for a ring of its bell, a signal to stop, or the end of its child."""

from __future__ import annotations

import contextlib
import os
import signal
from select import poll

from inotify_simple import INotify

from bonseyes_dagster.tool.worker.bell import Bell

__all__ = ["Wakeups"]

_POLL_S = 0.1


class Wakeups:
    """The events that wake the worker. Signals write to a pipe, so none is lost between a check and the sleep."""

    def __init__(self, bell: Bell) -> None:
        self.is_stopping = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._inotify: INotify | None = None
        with contextlib.suppress(OSError):
            self._inotify = bell.listen()
        self._poll = poll()
        self._poll.register(self._reader)
        if self._inotify is not None:
            self._poll.register(self._inotify.fileno())

    def take_signals(self) -> None:
        """Handle SIGTERM, SIGINT, SIGHUP (stop) and SIGCHLD (wake) from now on; call it in the main thread."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _stop(self, *_: object) -> None:
        self.is_stopping = True

    def wait(self, timeout_s: float) -> None:
        """Sleep until a signal or a ring, or for `timeout_s`."""
        if self._inotify is None:
            timeout_s = min(timeout_s, _POLL_S)
        self._poll.poll(max(0, int(timeout_s * 1000) + 1))
        self.has_rung()
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def has_rung(self) -> bool:
        """Tell, without a wait, whether the bell has rung since the last call."""
        if self._inotify is None:
            return True
        with contextlib.suppress(OSError):
            return bool(list(self._inotify.read(0)))
        return False
