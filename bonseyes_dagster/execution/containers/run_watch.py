"""Watches the runs that have a container each. With ContainerRunLauncher it takes the place of the run server.

`python -m bonseyes_dagster.orchestration.run_watch` starts it, with DAGSTER_HOME set; one for each project.
- A run whose container was killed gets another within seconds (run_recovery.py).
- A container that does not end after SIGTERM is killed.
- Containers that have ended are removed.
- The work that an ended run left in tools is cancelled.

The watch keeps no state on disk. Each check starts from the engine's list of containers and from Dagster's storage.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, DagsterRunStatus

from bonseyes_dagster.execution.containers.container_launcher import ContainerRunLauncher
from bonseyes_dagster.execution.containers.dagster_internals import RunRecord
from bonseyes_dagster.execution.containers.run_container import RUN_ID_LABEL
from bonseyes_dagster.execution.runs.lost_runs import ORPHAN_AGE_S, LostRunHandler, age_s, is_for_a_launcher
from bonseyes_dagster.execution.runs.process_record import read_record, recorded_run_ids
from bonseyes_dagster.execution.runs.run_end import Withdraw, close_left_steps

__all__ = ["RunWatch", "main"]

logger = logging.getLogger("bonseyes.run_watch")

INTERVAL_S = 2.0
# From SIGTERM to SIGKILL.
GRACE_S = 10.0
# The process of a run may end this long after the run. After that its container is killed.
LINGER_S = 60.0
# Pause after a withdrawal that failed, before the next attempt.
WITHDRAWAL_S = 15.0
_HEARTBEAT = Path("/tmp/.beat")  # noqa: S108 - the container's own


class RunWatch(LostRunHandler):
    """Compares the runs in Dagster's storage, their containers and their records."""

    def __init__(
        self, instance: DagsterInstance, launcher: ContainerRunLauncher, withdraw: Withdraw = close_left_steps
    ) -> None:
        super().__init__(instance, launcher.records, withdraw)
        self._launcher = launcher
        self._containers: dict[str, list[dict[str, Any]]] = {}
        self._withdrawals: dict[str, Future[None]] = {}
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="withdrawal")

    def check_runs(self) -> None:
        """Check the runs in progress, then the containers and the records of all other runs."""
        # Runs are read before containers. A run that ends in between is found ended when it is read again.
        entries = self._runs_in_progress()
        self._containers = {}
        for listed in self._launcher.containers():
            self._containers.setdefault(listed["Labels"].get(RUN_ID_LABEL, ""), []).append(listed)
        in_progress = {entry.dagster_run.run_id: entry for entry in entries}
        for run_id, entry in in_progress.items():
            with self._log_errors(run_id):
                self._check(entry)
        for run_id in set(self._containers) - set(in_progress):
            with self._log_errors(run_id):
                self._clear(run_id)
        for run_id in set(recorded_run_ids(self._folder)) - set(in_progress):
            with self._log_errors(run_id):
                self._forget_if_ended(run_id)

    # --- runs in progress

    def _check(self, entry: RunRecord) -> None:
        run = entry.dagster_run
        listed = self._containers.get(run.run_id, [])
        if self._has_process(run.run_id, listed):
            if run.status == DagsterRunStatus.CANCELING and age_s(entry) > GRACE_S:
                logger.warning("Run %s did not stop within %g s and is killed.", run.run_id, GRACE_S)
                self._launcher.send("SIGKILL", listed)
        elif self._is_lost(entry, listed):
            self._recover(run.run_id, _describe_end(listed))
            self._remove_ended(listed)

    def _is_lost(self, entry: RunRecord, listed: list[dict[str, Any]]) -> bool:
        """Tell whether a run without process will not get one from its launcher."""
        run = entry.dagster_run
        if read_record(self._folder, run.run_id)[0] is not None:
            return True
        if not is_for_a_launcher(run):
            return False
        had_container = any(each["State"] == "exited" for each in listed)
        return had_container or age_s(entry) > ORPHAN_AGE_S

    def _has_process(self, run_id: str, listed: list[dict[str, Any]]) -> bool:
        """Tell whether a run has a process, or a container that is about to start one."""
        is_coming = any(each["State"] == "running" or _is_young(each) for each in listed)
        return is_coming or read_record(self._folder, run_id)[1]

    def start(self, run_id: str, is_resumed: bool) -> None:
        """Start a container for a run."""
        run = self._instance.get_run_by_id(run_id)
        if run is not None:
            self._launcher.start(run, is_resumed=is_resumed)

    def _remove_ended(self, listed: list[dict[str, Any]]) -> None:
        for each in listed:
            if each["State"] != "running" and not _is_young(each):
                self._launcher.remove(each["Id"])

    # --- ended runs

    def _clear(self, run_id: str) -> None:
        """Remove the containers of a run that is not in progress; kill one that outlives its run by LINGER_S."""
        listed = self._containers[run_id]
        if any(each["State"] == "running" for each in listed):
            entry = self._instance.get_run_record_by_id(run_id)
            is_over = entry is None or entry.dagster_run.is_finished
            if is_over and (entry is None or age_s(entry) > LINGER_S):
                logger.warning("Run %s is over, but its container is still running and is killed.", run_id)
                self._launcher.send("SIGKILL", listed)
        self._remove_ended(listed)

    def _forget_if_ended(self, run_id: str) -> None:
        """Forget a run that is not in progress, if it has ended and nothing works for it at this moment."""
        withdrawal = self._withdrawals.get(run_id)
        is_withdrawing = withdrawal is not None and not withdrawal.done()
        if is_withdrawing or read_record(self._folder, run_id)[1]:
            return
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:  # it may have started since the check began
            self._forget(run_id, run)

    def _begin_withdrawal(self, run_id: str) -> None:
        self._withdrawals[run_id] = self._threads.submit(self._withdraw_or_pause, run_id)

    def _withdraw_or_pause(self, run_id: str) -> None:
        if not self._withdraw_and_forget(self._instance, run_id):
            time.sleep(WITHDRAWAL_S)

    def close(self) -> None:
        """Cancel the withdrawals that have not begun; do not wait for the others."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _is_young(listed: dict[str, Any]) -> bool:
    """Tell whether a container is new, so that its launcher is about to start it."""
    return listed["State"] == "created" and time.time() - float(listed["Created"]) < ORPHAN_AGE_S


def _describe_end(listed: list[dict[str, Any]]) -> str:
    """Describe how the latest container ended."""
    for each in sorted(listed, key=lambda each: -float(each["Created"])):
        return f"The run's container {each['Id'][:12]} is gone ({str(each.get('Status') or each['State']).lower()})."
    return "The run had no container."


def _ticks(stop: threading.Event) -> Iterator[None]:
    while not stop.is_set():
        yield
        stop.wait(INTERVAL_S)


def main(withdraw: Withdraw = close_left_steps) -> None:
    """Watch in the foreground until SIGTERM or SIGINT; call `withdraw` for runs that failed or were cancelled."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with DagsterInstance.get() as instance:
        launcher = instance.run_launcher
        if not isinstance(launcher, ContainerRunLauncher):
            name = type(launcher).__name__
            raise SystemExit(f"The run launcher in dagster.yaml is {name}; the watch needs ContainerRunLauncher.")
        watch = RunWatch(instance, launcher, withdraw)
        for _ in _ticks(stop):
            try:
                watch.check_runs()
                _HEARTBEAT.touch()
            except Exception:  # the database or the engine may be away; the next check tries again
                logger.exception("The runs cannot be checked; the next check tries again.")
        watch.close()
    os._exit(0)  # do not wait for a container that does not answer


if __name__ == "__main__":
    main()
