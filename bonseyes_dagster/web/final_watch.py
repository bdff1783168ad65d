"""Who waits for artifacts or runs to end: one thread looks for all of them. Backends answer `when_final` with it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

__all__ = ["FinalWatch"]

_log = logging.getLogger(__name__)

Look = Callable[[Collection[str]], Collection[str]]


class FinalWatch:
    """Hands out futures that are done when something may be final, or gone.

    `look` returns those of some keys that are over. `pause` waits for the next change, also one since the look began;
    only one thread calls it. Safe for many threads; a forked process begins anew.
    """

    def __init__(self, look: Look, pause: Callable[[], None]) -> None:
        self._look = look
        self._pause = pause
        self._pid = 0
        self._starting = threading.Lock()
        self._changed = threading.Condition()
        self._futures: dict[str, set[Future[None]]] = {}

    def when_final(self, key: str) -> Future[None]:
        """Return a future that is done once `key` may be over; cancel it when nobody waits any more."""
        future: Future[None] = Future()
        with self._own_lock():
            self._futures.setdefault(key, set()).add(future)
            self._changed.notify()
        future.add_done_callback(lambda done: self._forget(key, done))
        # It may have ended before the thread knew that somebody waits for it.
        if self._over([key]):
            _finish(future)
        return future

    def _own_lock(self) -> threading.Condition:
        with self._starting:
            if self._pid != os.getpid():
                self._changed = threading.Condition()
                self._futures = {}
                threading.Thread(target=self._watch, daemon=True, name="final").start()
                # Only now: where no thread could start, the next request tries again.
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
            for key in self._over(keys):
                with self._changed:
                    futures = list(self._futures.get(key, ()))
                for future in futures:
                    _finish(future)
            self._pause()

    def _over(self, keys: Collection[str]) -> Collection[str]:
        try:
            return self._look(keys)
        except Exception as error:  # whoever waits asks again, and gets the error for an answer
            _log.warning("it cannot be seen what has ended: %s", error)
            return keys


def _finish(future: Future[None]) -> None:
    with suppress(InvalidStateError):  # cancelled, or done, meanwhile
        future.set_result(None)
