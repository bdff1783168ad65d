"""Wait for the end of artifacts or runs: one thread checks all of them. Backends implement `when_final` with it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

__all__ = ["FinalWatch"]

_log = logging.getLogger(__name__)

FindEnded = Callable[[Collection[str]], Collection[str]]


class FinalWatch:
    """Returns futures that are done when an artifact or run may be final or deleted.

    `find_ended` returns those of the given keys that are final or deleted. `pause` waits for the next change; it also
    returns for a change during the last `find_ended`. Only one thread calls `pause`. FinalWatch is thread-safe, and
    starts again in a forked process.
    """

    def __init__(self, find_ended: FindEnded, pause: Callable[[], None]) -> None:
        self._find_ended = find_ended
        self._pause = pause
        self._pid = 0
        self._starting = threading.Lock()
        self._changed = threading.Condition()
        self._futures: dict[str, set[Future[None]]] = {}

    def when_final(self, key: str) -> Future[None]:
        """Return a future that is done once `key` may have ended; the caller cancels it after its wait."""
        future: Future[None] = Future()
        with self._own_lock():
            self._futures.setdefault(key, set()).add(future)
            self._changed.notify()
        future.add_done_callback(lambda done: self._forget(key, done))
        # It may have ended before the thread knew the new key.
        if self._ended_keys([key]):
            _finish(future)
        return future

    def _own_lock(self) -> threading.Condition:
        with self._starting:
            if self._pid != os.getpid():
                self._changed = threading.Condition()
                self._futures = {}
                threading.Thread(target=self._watch, daemon=True, name="final").start()
                # Last, so that the next request tries again if the thread cannot start.
                self._pid = os.getpid()
        return self._changed

    def _forget(self, key: str, future: Future[None]) -> None:
        with self._changed:
            futures = self._futures.get(key, set())
            futures.discard(future)
            if not futures:
                self._futures.pop(key, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._futures)
                keys = list(self._futures)
            for key in self._ended_keys(keys):
                with self._changed:
                    futures = list(self._futures.get(key, ()))
                for future in futures:
                    _finish(future)
            self._pause()

    def _ended_keys(self, keys: Collection[str]) -> Collection[str]:
        try:
            return self._find_ended(keys)
        except Exception as error:  # every waiting request asks the backend again, and gets its error
            _log.warning("The ended artifacts or runs cannot be read: %s", error)
            return keys


def _finish(future: Future[None]) -> None:
    with suppress(InvalidStateError):  # it was cancelled or done meanwhile
        future.set_result(None)
