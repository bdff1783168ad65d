"""Wake up other processes: one process rings a bell, and all listeners wake within a millisecond, without polling."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from select import poll

from inotify_simple import INotify, flags

__all__ = ["Bell", "Listener", "Waiters"]

# The pause between checks on systems without inotify.
_POLL_S = 0.05
# The longest wait for a ring, because a ring may get lost.
_LONGEST_S = 5.0


class Bell:
    """A file on the volume. A process rings the bell by opening it, which changes nothing on disk and needs no sync."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ring(self) -> None:
        """Wake all listeners in every process."""
        try:
            os.close(os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        except OSError:
            # No descriptor is free, or the disk is full. Listeners also wake without a ring, from time to time.
            return

    def listen(self) -> INotify:
        """Return an inotify object to poll and to `read(0)`; raise OSError if the system can create no more."""
        inotify = INotify(nonblocking=True)
        try:
            inotify.add_watch(self.path, flags.OPEN)
        except OSError:
            inotify.close()
            raise
        return inotify


class Listener:
    """Waits for the rings of one bell, in one thread only. It misses no ring between two calls of `wait`."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._inotify: INotify | None = None

    def wait(self) -> None:
        """Return at the next ring; it may also return without a ring."""
        if self._inotify is None:
            try:
                self._inotify = self._bell.listen()
            except OSError:
                time.sleep(_POLL_S)
            # The bell may have rung before the listener was ready.
            return
        _wait_for_ring(self._inotify, _LONGEST_S)


class Waiters:
    """All threads of this process that wait for a bell. One thread listens for all; the first waiter starts it."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._pid = 0
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._rings = 0
        self._is_listening = False
        self._is_started = False

    def count(self) -> int:
        """Return how often the bell has rung. Call it before you check a state, then pass the number to `wait`."""
        if self._pid != os.getpid():
            # This process is a fork: it has no listening thread, and its locks are not valid.
            self._pid = os.getpid()
            self._begin()
        with self._changed:
            if not self._is_started:
                self._is_started = True
                self._start()
            return self._rings

    def wait(self, since: int, timeout_s: float) -> None:
        """Return once the bell has rung more than `since` times, or after `timeout_s`; it may also return earlier."""
        longest_s = _LONGEST_S if self._is_listening else _POLL_S
        with self._changed:
            self._changed.wait_for(lambda: self._rings != since, min(timeout_s, longest_s))

    def _start(self) -> None:
        try:
            inotify = self._bell.listen()
        except OSError:
            return
        self._is_listening = True
        threading.Thread(target=self._listen, args=(inotify,), name="bell", daemon=True).start()

    def _listen(self, inotify: INotify) -> None:
        while True:
            _wait_for_ring(inotify, None)
            with self._changed:
                self._rings += 1
                self._changed.notify_all()


def _wait_for_ring(inotify: INotify, longest_s: float | None) -> None:
    """Return at the next ring, or after `longest_s`. Consume all rings so far."""
    poller = poll()
    poller.register(inotify.fileno())
    poller.poll(None if longest_s is None else longest_s * 1000)
    try:
        inotify.read(0)
    except OSError:
        time.sleep(_POLL_S)
