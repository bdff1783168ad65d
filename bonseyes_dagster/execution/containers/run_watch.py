"""Watches over runs that have containers of their own; the run server's part where `container_launcher.py` launches.

`python -m bonseyes_dagster.orchestration.run_watch`, with DAGSTER_HOME set; one for each project. A run whose container
was killed gets another within seconds (run_recovery.py); one that does not end when told to is killed; containers that
have ended are removed, and what an ended run left at work elsewhere is cancelled. It keeps nothing: whatever dies, the
next look begins from the engine's list and Dagster's storage.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from bonseyes_dagster.execution.containers.container_launcher import ContainerRunLauncher
from bonseyes_dagster.execution.containers.dagster_internals import GRPC_INFO_TAG, RunRecord
from bonseyes_dagster.execution.containers.run_container import RUN_ID_LABEL
from bonseyes_dagster.execution.runs.run_end import Withdraw, may_have_left_work, withdraw_nothing
from bonseyes_dagster.execution.runs.run_record import read_record, read_records, remove_record
from bonseyes_dagster.execution.runs.run_recovery import recover_run

__all__ = ["RunWatch", "main"]

logger = logging.getLogger("bonseyes.run_watch")

INTERVAL_S = 2.0
# From SIGTERM to SIGKILL.
GRACE_S = 10.0
# A launcher reports a run as starting before it asks for its container: leave it that long.
ORPHAN_AGE_S = 30.0
# The process of a run has a while to end after the run; then what is left of it is no use to anybody.
LINGER_S = 60.0
# Containers that are away are asked again after so long to cancel what they make.
WITHDRAWAL_S = 15.0
_IN_PROGRESS = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
_BEAT = Path("/tmp/.beat")  # noqa: S108 - the container's own


class RunWatch:
    """Looks again and again."""

    def __init__(
        self, instance: DagsterInstance, launcher: ContainerRunLauncher, withdraw: Withdraw = withdraw_nothing
    ) -> None:
        self._instance = instance
        self._launcher = launcher
        self._withdraw = withdraw
        self._containers: dict[str, list[dict[str, Any]]] = {}
        self._withdrawals: dict[str, Future[None]] = {}
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="withdrawal")

    def look(self) -> None:
        """See to everything once."""
        # First the runs: one that ends in between is found ended when it is looked at again.
        entries = self._instance.get_run_records(RunsFilter(statuses=_IN_PROGRESS), limit=1000)
        self._containers = {}
        for listed in self._launcher.containers():
            self._containers.setdefault(listed["Labels"].get(RUN_ID_LABEL, ""), []).append(listed)
        in_progress = {entry.dagster_run.run_id: entry for entry in entries}
        for run_id, entry in in_progress.items():
            self._try(run_id, self._see_to, entry)
        for run_id in set(self._containers) - set(in_progress):
            self._try(run_id, self._clear, run_id)
        for run_id in set(read_records(self._launcher.records)) - set(in_progress):
            self._try(run_id, self._forget, run_id)

    def _try(self, run_id: str, see_to: Callable[[Any], None], what: Any) -> None:
        """Do it; what is wrong with one run must not keep the others from being seen to."""
        try:
            see_to(what)
        except Exception:  # the database or the engine may be away; the next look tries again
            logger.exception("run %s cannot be seen to", run_id)

    # --- runs in progress

    def _see_to(self, entry: RunRecord) -> None:
        run, age_s = entry.dagster_run, time.time() - entry.update_timestamp.timestamp()
        listed = self._containers.get(run.run_id, [])
        if self._has_process(run.run_id, listed):
            if run.status == DagsterRunStatus.CANCELING and age_s > GRACE_S:
                logger.warning("run %s did not stop in %g s and is killed", run.run_id, GRACE_S)
                self._launcher.send("SIGKILL", listed)
        elif self._is_lost(entry, listed):
            had_record = read_record(self._launcher.records, run.run_id)[0] is not None
            recover_run(self._instance, run.run_id, _end_of(listed), self._start, had_record=had_record)
            self._remove_ended(listed)

    def _is_lost(self, entry: RunRecord, listed: list[dict[str, Any]]) -> bool:
        """Tell whether a run without process is one that a launcher has given a container, or is not going to."""
        run, age_s = entry.dagster_run, time.time() - entry.update_timestamp.timestamp()
        if read_record(self._launcher.records, run.run_id)[0] is not None:
            return True
        if run.remote_job_origin is None or GRPC_INFO_TAG in run.tags:
            return False
        had_container = any(each["State"] == "exited" for each in listed)
        return had_container or age_s > ORPHAN_AGE_S

    def _has_process(self, run_id: str, listed: list[dict[str, Any]]) -> bool:
        is_coming = any(each["State"] == "running" or _is_young(each) for each in listed)
        return is_coming or read_record(self._launcher.records, run_id)[1]

    def _start(self, run_id: str, is_resumed: bool) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run is not None:
            self._launcher.start(run, is_resumed=is_resumed)

    def _remove_ended(self, listed: list[dict[str, Any]]) -> None:
        for each in listed:
            if each["State"] != "running" and not _is_young(each):
                self._launcher.remove(each["Id"])

    # --- what ended runs leave

    def _clear(self, run_id: str) -> None:
        """Remove the containers of a run that is not in progress; one still at work gets a while."""
        listed = self._containers[run_id]
        if any(each["State"] == "running" for each in listed):
            entry = self._instance.get_run_record_by_id(run_id)
            is_over = entry is None or entry.dagster_run.is_finished
            if is_over and (entry is None or time.time() - entry.update_timestamp.timestamp() > LINGER_S):
                logger.warning("run %s is over, and its container lives: it is killed", run_id)
                self._launcher.send("SIGKILL", listed)
        self._remove_ended(listed)

    def _forget(self, run_id: str) -> None:
        """Remove the record of an ended run; of one that its tools may be at work for still, when they are not."""
        former = self._withdrawals.get(run_id)
        is_under_way = former is not None and not former.done()
        if is_under_way or read_record(self._launcher.records, run_id)[1]:
            return
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:  # it has begun since
            return
        if may_have_left_work(run):
            self._withdrawals[run_id] = self._threads.submit(self._take_back, run_id)
        else:
            remove_record(self._launcher.records, run_id)

    def _take_back(self, run_id: str) -> None:
        if self._withdraw(self._instance, run_id):
            remove_record(self._launcher.records, run_id)
        else:
            time.sleep(WITHDRAWAL_S)

    def close(self) -> None:
        """Stop what is going on aside."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _is_young(listed: dict[str, Any]) -> bool:
    """Tell whether a container was made a moment ago, and is about to be started."""
    return listed["State"] == "created" and time.time() - float(listed["Created"]) < ORPHAN_AGE_S


def _end_of(listed: list[dict[str, Any]]) -> str:
    """Say what became of the latest container."""
    for each in sorted(listed, key=lambda each: -float(each["Created"])):
        return f"The run's container {each['Id'][:12]} is gone ({str(each.get('Status') or each['State']).lower()})."
    return "The run had no container."


def _looks(stop: threading.Event) -> Iterator[None]:
    while not stop.is_set():
        yield
        stop.wait(INTERVAL_S)


def main(withdraw: Withdraw = withdraw_nothing) -> None:
    """Watch in the foreground until SIGTERM or SIGINT; `withdraw` is called for runs that failed or were cancelled."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with DagsterInstance.get() as instance:
        launcher = instance.run_launcher
        if not isinstance(launcher, ContainerRunLauncher):
            raise SystemExit(f"dagster.yaml has runs launched by {type(launcher).__name__}: there is nothing to watch")
        watch = RunWatch(instance, launcher, withdraw)
        for _ in _looks(stop):
            try:
                watch.look()
                _BEAT.touch()
            except Exception:  # the database or the engine may be away; the next look tries again
                logger.exception("runs cannot be looked at")
        watch.close()
    os._exit(0)  # a container that does not answer must not hold this up


if __name__ == "__main__":
    main()
