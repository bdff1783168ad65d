"""The runs of the run server: forks their processes, adopts runs of earlier servers, and handles lost runs.

run_server.py calls it.
"""

import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from bonseyes_dagster.execution.processes import run_worker
from bonseyes_dagster.execution.processes.run_process import RunProcess
from bonseyes_dagster.execution.processes.warm_definitions import Target
from bonseyes_dagster.execution.runs.lost_runs import ORPHAN_AGE_S, LostRunHandler, age_s, is_for_a_launcher
from bonseyes_dagster.execution.runs.process_record import read_record, recorded_run_ids
from bonseyes_dagster.execution.runs.run_end import Withdraw
from bonseyes_dagster.execution.storage.sqlite_storage import close_connections

__all__ = ["RunKeeper"]

logger = logging.getLogger(__name__)

_STOPPED = (DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED, DagsterRunStatus.FAILURE)

# Gets whether another process has the run already, and the pid of the child.
LaunchCallback = Callable[[bool, int], None]


@dataclass(frozen=True, slots=True)
class _Launch:
    """A child that has not yet reported whether it has the run. It reports through the pipe `reader`."""

    process: RunProcess
    reader: int
    on_report: LaunchCallback


class RunKeeper(LostRunHandler):
    """Registers file descriptors with the server's selector. The data of each key is a function to call when ready."""

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
        super().__init__(instance, folder, withdraw)
        self._selector = selector
        self._target = target
        self._grace_s = grace_s
        self._logs = logs
        self._close_in_child = close_in_child
        self._processes: dict[str, RunProcess] = {}
        self._launches: dict[str, _Launch] = {}
        self._withdrawals: dict[str, RunProcess] = {}
        # Create its lazy parts before the fork. None of them holds a connection or a thread.
        self._worker_instance = run_worker.open_worker_instance(instance)
        _ = (self._worker_instance.compute_log_manager, self._worker_instance.run_launcher)

    @property
    def pids(self) -> dict[str, int]:
        """Return the pid of each live run, by run id."""
        return {run_id: process.pid for run_id, process in self._processes.items()}

    @property
    def is_launching(self) -> bool:
        """Tell whether the server waits for the report of a child."""
        return bool(self._launches)

    @property
    def is_terminating(self) -> bool:
        """Tell whether the grace period of a run is running."""
        return any(process.kill_at is not None for process in self._processes.values())

    def has_process(self, run_id: str) -> bool:
        """Tell whether a run has a process; another server or a launcher may have started it."""
        return run_id in self._processes or run_id in self._launches or read_record(self._folder, run_id)[1]

    # --- new processes

    def start(self, run_id: str, is_resumed: bool, on_report: LaunchCallback = lambda _taken, _pid: None) -> None:
        """Fork a run's process; call `on_report(taken, pid)` when it has the run, or finds that another process has."""
        reader, writer = os.pipe2(os.O_CLOEXEC)

        def child_main() -> int:
            os.close(reader)
            log = self._logs / f"{run_id}.log" if self._logs else None
            worker = (self._worker_instance, self._folder, run_id)
            return run_worker.execute_run(*worker, is_resumed=is_resumed, report=report, log=log)

        def report(state: bytes) -> None:
            os.write(writer, state)
            os.close(writer)

        try:
            launch = _Launch(self._fork(run_id, child_main), reader, on_report)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._launches[run_id] = launch
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._read_report(launch))

    def _fork(self, run_id: str, child_main: Callable[[], int]) -> RunProcess:
        close_connections()
        signal.pthread_sigmask(signal.SIG_BLOCK, run_worker.WAIT_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._run_child(run_id, child_main)
            return RunProcess(run_id, pid)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, run_worker.WAIT_SIGNALS)

    def _run_child(self, run_id: str, child_main: Callable[[], int]) -> None:
        """Run `child_main` in the forked process and exit; never return."""
        code = 1
        try:
            os.setsid()
            self._close_all()
            code = child_main()
        except BaseException:
            logger.exception("The process of run %s failed.", run_id)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    def _close_all(self) -> None:
        """Close the descriptors of the server in the child."""
        self._selector.close()
        self._close_in_child()
        for launch in self._launches.values():
            os.close(launch.reader)
            os.close(launch.process.descriptor)
        for process in (*self._processes.values(), *self._withdrawals.values()):
            os.close(process.descriptor)

    def _read_report(self, launch: _Launch) -> None:
        """Read whether a child has the run; an empty report means that the child died before."""
        report = os.read(launch.reader, 1)
        self._selector.unregister(launch.reader)
        os.close(launch.reader)
        process = launch.process
        del self._launches[process.run_id]
        if report == run_worker.STARTED or not report:
            self._add(process)
        else:
            process.reap()
        launch.on_report(report != run_worker.STARTED, process.pid)

    # --- ends

    def _add(self, process: RunProcess) -> None:
        self._processes[process.run_id] = process
        self._selector.register(process.descriptor, selectors.EVENT_READ, lambda: self._handle_end(process))

    def _remove(self, process: RunProcess) -> str:
        del self._processes[process.run_id]
        self._selector.unregister(process.descriptor)
        return process.reap()

    def _handle_end(self, process: RunProcess) -> None:
        end = self._remove(process)
        self.recover(process.run_id, f"The run's process {process.pid} {end}.", has_just_ended=True)

    def recover(self, run_id: str, cause: str = "The run had no process.", *, has_just_ended: bool = False) -> None:
        """Handle a run that has no process. Its record stays until nothing is left to do for the run."""
        if run_id in self._withdrawals:
            return
        with self._log_errors(run_id):
            if not self._recover(run_id, cause, has_just_ended=has_just_ended):
                self._forget(run_id, self._instance.get_run_by_id(run_id))

    def _begin_withdrawal(self, run_id: str) -> None:
        """Fork a process that cancels the work that the run left. Each check tries again the cancels that failed."""

        def child_main() -> int:
            run_worker.restore_signals()
            return 0 if self._withdraw_and_forget(self._worker_instance, run_id) else 1

        process = self._fork(run_id, child_main)
        self._withdrawals[run_id] = process
        self._selector.register(process.descriptor, selectors.EVENT_READ, lambda: self._end_withdrawal(process))

    def _end_withdrawal(self, process: RunProcess) -> None:
        del self._withdrawals[process.run_id]
        self._selector.unregister(process.descriptor)
        process.reap()

    def terminate(self, run_id: str) -> bool:
        """Send a run SIGTERM, and SIGKILL after the grace period; tell whether the run had a process."""
        launch = self._launches.get(run_id)
        process = launch.process if launch else self._processes.get(run_id)
        if process is None:
            if not self.has_process(run_id):
                self.recover(run_id)
            # `dagster job execute` gets no signal: its executor sees that the run is being cancelled (run_lease.py).
            return self.has_process(run_id)
        process.send(signal.SIGTERM)
        process.kill_at = process.kill_at or time.monotonic() + self._grace_s
        return True

    def kill_overdue(self) -> None:
        """Kill the process groups of runs that did not stop within the grace period."""
        now = time.monotonic()
        for process in self._processes.values():
            if process.kill_at is not None and now >= process.kill_at:
                logger.warning("Run %s did not stop within %g s and is killed.", process.run_id, self._grace_s)
                process.kill_at = now + self._grace_s
                process.kill_group()

    def stop_all(self) -> None:
        """Send all runs SIGTERM, wait, and kill the rest. Their records stay, so that the next server resumes them."""
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
        """Handle the runs that have a record: watch those with a live process, recover the others."""
        for run_id in list(recorded_run_ids(self._folder)):
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
            logger.info("Adopting run %s (pid %d).", run_id, record.pid)
            self._add(process)
            # The earlier server sent SIGTERM, and can no longer send SIGKILL.
            if self._has_to_stop(run_id):
                process.kill_at = time.monotonic() + self._grace_s

    def _has_to_stop(self, run_id: str) -> bool:
        """Tell whether the process of a run must end.

        A run that exceeded its time has failed while its process is alive. The process of a run that succeeded may
        take its time to end.
        """
        try:
            run = self._instance.get_run_by_id(run_id)
        except Exception:  # the database may be away
            logger.exception("Run %s cannot be read.", run_id)
            return False
        return run is not None and run.status in _STOPPED

    def check_runs(self) -> None:
        """Handle lost runs that no event announces: records without a process, runs without a record."""
        self.adopt()
        try:
            entries = self._runs_in_progress()
        except Exception:  # the database may be away
            logger.exception("The runs in progress cannot be read; the next check tries again.")
            return
        for entry in entries:
            run = entry.dagster_run
            if age_s(entry) > ORPHAN_AGE_S and self._is_for_this_server(run) and not self.has_process(run.run_id):
                self.recover(run.run_id)

    def _is_for_this_server(self, run: DagsterRun) -> bool:
        """Tell whether a launcher would ask this server for the run's process."""
        if not is_for_a_launcher(run) or run.job_code_origin is None:
            return False
        return self._target.has(run.job_code_origin.repository_origin.code_pointer)
