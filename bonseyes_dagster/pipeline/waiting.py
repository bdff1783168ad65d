"""Long polls on runs: one thread asks Dagster's storage for all that wait, with one small query at a time."""

from __future__ import annotations

import threading
import time

from dagster import DagsterInstance, RunsFilter
from dagster._core.storage.dagster_run import FINISHED_STATUSES

__all__ = ["FinishWatch"]

INTERVAL_S = 0.05
# Dagster's storages cannot notify, and a query for the ids of finished runs costs half a millisecond.


class FinishWatch:
    """Lets many threads wait for runs to end, at the cost of one query per interval."""

    def __init__(self, instance: DagsterInstance, interval_s: float = INTERVAL_S) -> None:
        self._instance = instance
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._waiters: dict[str, list[threading.Event]] = {}
        self._is_running = False

    def wait(self, run_id: str, timeout_s: float) -> None:
        """Return when the run is final or after `timeout_s` seconds."""
        event = threading.Event()
        with self._lock:
            self._waiters.setdefault(run_id, []).append(event)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._watch, daemon=True, name="finished runs").start()
        try:
            event.wait(timeout_s)
        finally:
            self._leave(run_id, event)

    def _leave(self, run_id: str, event: threading.Event) -> None:
        with self._lock:
            events = self._waiters.get(run_id, [])
            if event in events:
                events.remove(event)
            if not events:
                self._waiters.pop(run_id, None)

    def _watch(self) -> None:
        try:
            while True:
                with self._lock:
                    waiting = list(self._waiters)
                    if not waiting:
                        self._is_running = False
                        return
                filters = RunsFilter(run_ids=waiting, statuses=FINISHED_STATUSES)
                for run_id in self._instance.get_run_ids(filters):
                    self._wake(run_id)
                time.sleep(self._interval_s)
        except BaseException:
            # The waiters' own time-outs end their waits; the next one starts a new thread.
            with self._lock:
                self._is_running = False
            raise

    def _wake(self, run_id: str) -> None:
        with self._lock:
            for event in self._waiters.pop(run_id, []):
                event.set()
