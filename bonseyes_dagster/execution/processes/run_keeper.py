"""The run server's runs: forks their processes, adopts those of earlier servers, and sees to runs that have none."""

import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from bonseyes_dagster.execution.processes.dagster_internals import GRPC_INFO_TAG
from bonseyes_dagster.execution.processes.run_process import RunProcess
from bonseyes_dagster.execution.processes.run_worker import STARTED, WAIT_SIGNALS, open_worker_instance, take_back, work
from bonseyes_dagster.execution.processes.warm_definitions import Target
from bonseyes_dagster.execution.runs.run_end import Withdraw, may_have_left_work
from bonseyes_dagster.execution.runs.run_record import read_record, read_records, remove_record
from bonseyes_dagster.execution.runs.run_recovery import recover_run
from bonseyes_dagster.execution.storage.sqlite_storage import close_connections

__all__ = ["RunKeeper"]

logger = logging.getLogger(__name__)

# A launcher reports a run as starting before it asks for its process: leave it that long.
ORPHAN_AGE_S = 30.0

_STOPPED = (DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED, DagsterRunStatus.FAILURE)

Heard = Callable[[bool, int], None]


@dataclass(frozen=True, slots=True)
class _Launch:
    """A child that has not said yet whether the run is its own, and who wants to know."""

    process: RunProcess
    reader: int
    heard: Heard


class RunKeeper:
    """Registers itself with the server's selector: each key's data is what to call when it is ready."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        instance: DagsterInstance,
        target: Target,
        *,
        folder: Path,
        grace_s: float,
        logs: Path | None,
        close_in_child: Callable[[], None],
        withdraw: Withdraw,
    ) -> None:
        self._selector = selector
        self._instance = instance
        self._target = target
        self._folder = folder
        self._grace_s = grace_s
        self._logs = logs
        self._close_in_child = close_in_child
        self._withdraw = withdraw
        self._processes: dict[str, RunProcess] = {}
        self._launches: dict[str, _Launch] = {}
        self._withdrawals: dict[str, RunProcess] = {}
        # Its parts are made before the fork; none of them holds a connection or a thread.
        self._worker_instance = open_worker_instance(instance)
        _ = (self._worker_instance.compute_log_manager, self._worker_instance.run_launcher)

    @property
    def pids(self) -> dict[str, int]:
        """Return the processes of live runs."""
        return {run_id: process.pid for run_id, process in self._processes.items()}

    @property
    def is_launching(self) -> bool:
        """Tell whether a child has still to say that its run is its own."""
        return bool(self._launches)

    @property
    def is_terminating(self) -> bool:
        """Tell whether a run's time to stop is running."""
        return any(process.kill_at is not None for process in self._processes.values())

    def has_process(self, run_id: str) -> bool:
        """Tell whether a run has a process, whoever started it."""
        return run_id in self._processes or run_id in self._launches or read_record(self._folder, run_id)[1]

    # --- new processes

    def start(self, run_id: str, is_resumed: bool, heard: Heard = lambda _taken, _pid: None) -> None:
        """Fork a run's process; `heard(taken, pid)` is called when it has the run, or finds it taken."""
        reader, writer = os.pipe2(os.O_CLOEXEC)

        def become_run() -> int:
            os.close(reader)
            log = self._logs / f"{run_id}.log" if self._logs else None
            return work(self._worker_instance, self._folder, run_id, is_resumed=is_resumed, tell=tell, log=log)

        def tell(word: bytes) -> None:
            os.write(writer, word)
            os.close(writer)

        try:
            launch = _Launch(self._fork(run_id, become_run), reader, heard)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._launches[run_id] = launch
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._hear(launch))

    def _fork(self, run_id: str, become: Callable[[], int]) -> RunProcess:
        close_connections()
        signal.pthread_sigmask(signal.SIG_BLOCK, WAIT_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._leave_server(run_id, become)
            return RunProcess(run_id, pid)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WAIT_SIGNALS)

    def _leave_server(self, run_id: str, become: Callable[[], int]) -> None:
        """Never return: from here on this is another process."""
        code = 1
        try:
            os.setsid()
            self._close_all()
            code = become()
        except BaseException:
            logger.exception("the process of run %s broke", run_id)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    def _close_all(self) -> None:
        """Close, in the child, what belongs to the server."""
        self._selector.close()
        self._close_in_child()
        for launch in self._launches.values():
            os.close(launch.reader)
            os.close(launch.process.descriptor)
        for process in (*self._processes.values(), *self._withdrawals.values()):
            os.close(process.descriptor)

    def _hear(self, launch: _Launch) -> None:
        """Take a child's word that the run is its own; no word means that it died before."""
        word = os.read(launch.reader, 1)
        self._selector.unregister(launch.reader)
        os.close(launch.reader)
        process = launch.process
        del self._launches[process.run_id]
        if word == STARTED or not word:
            self._add(process)
        else:
            process.reap()
        launch.heard(word != STARTED, process.pid)

    # --- ends

    def _add(self, process: RunProcess) -> None:
        self._processes[process.run_id] = process
        self._selector.register(process.descriptor, selectors.EVENT_READ, lambda: self._reap(process))

    def _remove(self, process: RunProcess) -> str:
        del self._processes[process.run_id]
        self._selector.unregister(process.descriptor)
        return process.reap()

    def _reap(self, process: RunProcess) -> None:
        how = self._remove(process)
        self.recover(process.run_id, f"The run's process {process.pid} {how}.", is_news=True)

    def recover(self, run_id: str, why: str = "The run had no process.", *, is_news: bool = False) -> None:
        """See to a run that has no process; its record stays until there is nothing left to be done for it."""
        if run_id in self._withdrawals:
            return
        try:
            had_record = read_record(self._folder, run_id)[0] is not None
            is_again = recover_run(self._instance, run_id, why, self.start, had_record=had_record, is_news=is_news)
            if not is_again and may_have_left_work(self._instance.get_run_by_id(run_id)):
                self._begin_withdrawal(run_id)
            elif not is_again:
                remove_record(self._folder, run_id)
        except Exception:  # the database may be away; the next sweep tries again
            logger.exception("run %s cannot be seen to", run_id)

    def _begin_withdrawal(self, run_id: str) -> None:
        """Have a process cancel what the run left in progress; what it could not cancel is tried at each sweep."""
        process = self._fork(run_id, lambda: take_back(self._worker_instance, self._folder, run_id, self._withdraw))
        self._withdrawals[run_id] = process
        self._selector.register(process.descriptor, selectors.EVENT_READ, lambda: self._end_withdrawal(process))

    def _end_withdrawal(self, process: RunProcess) -> None:
        del self._withdrawals[process.run_id]
        self._selector.unregister(process.descriptor)
        process.reap()

    def terminate(self, run_id: str) -> bool:
        """Send a run SIGTERM, and SIGKILL when its time is over; say whether it had a process."""
        launch = self._launches.get(run_id)
        process = launch.process if launch else self._processes.get(run_id)
        if process is None:
            if not self.has_process(run_id):
                self.recover(run_id)
            # `dagster job execute` is sent no signal: its executor sees that the run is being cancelled (run_lease.py).
            return self.has_process(run_id)
        process.send(signal.SIGTERM)
        process.kill_at = process.kill_at or time.monotonic() + self._grace_s
        return True

    def kill_overdue(self) -> None:
        """Kill, with all that they started, runs that did not stop."""
        now = time.monotonic()
        for process in self._processes.values():
            if process.kill_at is not None and now >= process.kill_at:
                logger.warning("run %s did not stop in %g s and is killed", process.run_id, self._grace_s)
                process.kill_at = now + self._grace_s
                process.kill_group()

    def stop_all(self) -> None:
        """Send all runs SIGTERM, wait, and kill those that are left; their records stay, to be resumed from."""
        for process in self._processes.values():
            process.send(signal.SIGTERM)
        deadline = time.monotonic() + self._grace_s
        while self._processes and time.monotonic() < deadline:
            time.sleep(0.02)
            for process in list(self._processes.values()):
                if not process.is_running():
                    self._remove(process)
        for process in self._processes.values():
            process.kill_group()

    # --- runs of earlier servers

    def adopt(self) -> None:
        """Take over the runs that have a record: watch those that live, see to those that do not."""
        for run_id in list(read_records(self._folder)):
            if run_id not in self._processes and run_id not in self._launches:
                self._adopt_one(run_id)

    def _adopt_one(self, run_id: str) -> None:
        record, is_alive = read_record(self._folder, run_id)
        if not is_alive:
            self.recover(run_id, "The run's process is gone.")
        elif record is not None and record.is_dedicated and record.names_a_process():
            try:
                process = RunProcess(run_id, record.pid)
            except ProcessLookupError:
                return
            logger.info("adopting run %s (pid %d)", run_id, record.pid)
            self._add(process)
            if self._has_to_stop(run_id):  # the earlier server has told it to stop, and cannot kill it any more
                process.kill_at = time.monotonic() + self._grace_s

    def _has_to_stop(self, run_id: str) -> bool:
        """Tell whether a run is being cancelled or is over; a run that took too long has failed with its process alive.

        The process of a run that succeeded may take its time to end.
        """
        try:
            run = self._instance.get_run_by_id(run_id)
        except Exception:  # the database may be away
            logger.exception("run %s cannot be read", run_id)
            return False
        return run is not None and run.status in _STOPPED

    def sweep(self) -> None:
        """See to what nothing has announced: records without process, runs without record."""
        self.adopt()
        for run in self._orphans():
            self.recover(run.run_id)

    def _orphans(self) -> Iterator[DagsterRun]:
        in_progress = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
        try:
            entries = self._instance.get_run_records(RunsFilter(statuses=in_progress), limit=1000)
        except Exception:  # the database may be away
            logger.exception("runs in progress cannot be read")
            return
        for entry in entries:
            run, age_s = entry.dagster_run, time.time() - entry.update_timestamp.timestamp()
            if age_s > ORPHAN_AGE_S and self._is_ours(run) and not self.has_process(run.run_id):
                yield run

    def _is_ours(self, run: DagsterRun) -> bool:
        """Tell whether a launcher would have given us this run: not to a code server, not to its own process."""
        if run.remote_job_origin is None or GRPC_INFO_TAG in run.tags or run.job_code_origin is None:
            return False
        return self._target.has(run.job_code_origin.repository_origin.code_pointer)
