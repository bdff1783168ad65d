"""One lock for each run, between the threads of this process. A pipeline is served by one process.

The pipeline has two sets of locks. `launching.py` holds a run's start lock while it starts the run. `run_ending.py`
holds a run's delete lock during the whole deletion, and its start lock while it deletes the run's row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["RunLocks"]


class RunLocks:
    """The locks of all runs, by run id, for one kind of work. They outlive the objects that do the work."""

    def __init__(self) -> None:
        self._locked: set[str] = set()
        self._released = threading.Condition()

    @contextmanager
    def hold(self, run_id: str) -> Iterator[None]:
        """Wait for the run's lock and hold it."""
        with self._released:
            self._released.wait_for(lambda: run_id not in self._locked)
            self._locked.add(run_id)
        try:
            yield
        finally:
            self._release(run_id)

    @contextmanager
    def try_hold(self, run_id: str) -> Iterator[bool]:
        """Yield True and hold the run's lock; yield False at once if another thread holds it."""
        with self._released:
            is_held = run_id not in self._locked
            self._locked.add(run_id)
        try:
            yield is_held
        finally:
            if is_held:
                self._release(run_id)

    def _release(self, run_id: str) -> None:
        with self._released:
            self._locked.remove(run_id)
            self._released.notify_all()
