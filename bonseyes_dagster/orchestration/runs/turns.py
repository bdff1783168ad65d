"""Who is at work on a run: one thread of this process at a time. A pipeline has one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Turns"]


class Turns:
    """The runs that a thread is at work on, for one kind of work; it outlives whatever does the work."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._is_free = threading.Condition()

    @contextmanager
    def await_turn(self, run_id: str) -> Iterator[None]:
        """Wait until no other thread is at work on this run, and have others wait."""
        with self._is_free:
            self._is_free.wait_for(lambda: run_id not in self._taken)
            self._taken.add(run_id)
        try:
            yield
        finally:
            self._give_back(run_id)

    @contextmanager
    def try_turn(self, run_id: str) -> Iterator[bool]:
        """Tell whether no other thread is at work on this run; then others are kept away."""
        with self._is_free:
            is_alone = run_id not in self._taken
            self._taken.add(run_id)
        try:
            yield is_alone
        finally:
            if is_alone:
                self._give_back(run_id)

    def _give_back(self, run_id: str) -> None:
        with self._is_free:
            self._taken.remove(run_id)
            self._is_free.notify_all()
