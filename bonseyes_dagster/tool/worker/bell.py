"""Wake-ups between processes: whoever rings a bell wakes all that listen, within a millisecond and without polling."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from select import poll

from inotify_simple import INotify, flags

__all__ = ["Bell", "Listener", "Waiters"]

# Only where inotify is not to be had: how long a waiter sleeps between looks.
_POLL_S = 0.05
# A bell that could not be heard must not be waited for in vain.
_LONGEST_S = 5.0


class Bell:
    """A file on the volume: to open it is to ring it, which changes nothing on disk and so costs no commit of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ring(self) -> None:
        """Wake all that listen, in every process."""
        try:
            os.close(os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        except OSError:
            # Out of descriptors or disk: listeners look for themselves from time to time.
            return

    def listen(self) -> INotify:
        """Return something to poll and to `read(0)`; raise OSError when the system has no more of them."""
        inotify = INotify(nonblocking=True)
        try:
            inotify.add_watch(self.path, flags.OPEN)
        except OSError:
            inotify.close()
            raise
        return inotify


class Listener:
    """Hears the rings of one bell, also those between two calls of `wait`; for one thread."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._inotify: INotify | None = None

    def wait(self) -> None:
        """Return at the next ring, or now and then for no reason."""
        if self._inotify is None:
            try:
                self._inotify = self._bell.listen()
            except OSError:
                time.sleep(_POLL_S)
            # It may have rung meanwhile.
            return
        _hear(self._inotify, _LONGEST_S)


class Waiters:
    """All threads of this process that wait for a bell, served by one listening thread that the first one starts."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._pid = 0
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._rings = 0
        self._is_heard = False
        self._is_started = False

    def count(self) -> int:
        """Return how often the bell has rung; take it before looking, and pass it to `wait` after."""
        if self._pid != os.getpid():
            # Forked: threads and the state of locks stayed behind.
            self._pid = os.getpid()
            self._begin()
        with self._changed:
            if not self._is_started:
                self._is_started = True
                self._start()
            return self._rings

    def wait(self, since: int, timeout_s: float) -> None:
        """Return when the bell has rung after `since`, or after `timeout_s`, or now and then for no reason."""
        longest_s = _LONGEST_S if self._is_heard else _POLL_S
        with self._changed:
            self._changed.wait_for(lambda: self._rings != since, min(timeout_s, longest_s))

    def _start(self) -> None:
        try:
            inotify = self._bell.listen()
        except OSError:
            return
        self._is_heard = True
        threading.Thread(target=self._listen, args=(inotify,), name="bell", daemon=True).start()

    def _listen(self, inotify: INotify) -> None:
        while True:
            _hear(inotify, None)
            with self._changed:
                self._rings += 1
                self._changed.notify_all()


def _hear(inotify: INotify, longest_s: float | None) -> None:
    """Return at the next ring, or after `longest_s`; what has rung is taken."""
    poller = poll()
    poller.register(inotify.fileno())
    poller.poll(None if longest_s is None else longest_s * 1000)
    try:
        inotify.read(0)
    except OSError:
        time.sleep(_POLL_S)
