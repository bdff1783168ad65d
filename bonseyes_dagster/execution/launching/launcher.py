"""A run launcher that asks the run server for a ready process.

In dagster.yaml (the settings are optional; the default socket is DAGSTER_HOME/run_server/socket):
    run_launcher:
      module: bonseyes_dagster.execution.launching.launcher
      class: WarmRunLauncher
      config: {socket: /path/of/socket, grace_s: 10}

The launcher keeps no connection; its only state is the set of runs that it started itself. So any process may use it:
the webserver, the daemon, the CLI, and a Flask process with threads. Without a run server it launches with Dagster's
DefaultRunLauncher, which starts a process of the code server. It then resumes in a process that loads everything first.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, DefaultRunLauncher, Field, StringSource

from bonseyes_dagster.execution.launching.dagster_internals import (
    GRPC_INFO_TAG,
    CheckRunHealthResult,
    ConfigurableClass,
    ConfigurableClassData,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    WorkerStatus,
    deserialize_value,
    grpc_client_classes,
)
from bonseyes_dagster.execution.launching.run_protocol import (
    RunServerAnswerError,
    RunServerClient,
    RunServerGoneError,
    default_socket,
    records_folder,
    storage_id,
)
from bonseyes_dagster.execution.runs.process_record import ProcessRecord, read_record
from bonseyes_dagster.execution.runs.run_end import (
    cancel_run,
    close_steps,
    fail_run_that_took_too_long,
    fail_unlaunched,
)
from bonseyes_dagster.execution.runs.run_lease import was_launched

__all__ = ["WarmRunLauncher"]


class WarmRunLauncher(RunLauncher[DagsterInstance], ConfigurableClass):
    """Starts, resumes, stops and checks runs through the run server."""

    def __init__(
        self,
        socket: str | None = None,
        fallback: bool = True,
        grace_s: float = 10.0,
        timeout_s: float = 60.0,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        self._socket = socket
        self._has_fallback = fallback
        self._grace_s = grace_s
        self._timeout_s = timeout_s
        self._inst_data = inst_data
        self._stock: Any = DefaultRunLauncher()
        # Live runs whose process this launcher started. Such a process loads for seconds before it locks its record.
        self._cold: set[str] = set()
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Return the configuration in dagster.yaml."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        """Describe the configuration."""
        return {
            "socket": Field(StringSource, is_required=False, description="Socket of the run server."),
            "fallback": Field(
                bool, default_value=True, description="Without a run server, launch with DefaultRunLauncher."
            ),
            "grace_s": Field(float, default_value=10.0, description="Seconds from SIGTERM to SIGKILL."),
            "timeout_s": Field(
                float, default_value=60.0, description="Seconds to wait for a run server that loads code."
            ),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Create the launcher from dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    def register_instance(self, instance: DagsterInstance) -> None:
        """Register the instance, also with the stock launcher."""
        super().register_instance(instance)
        if not self._stock.has_instance:
            self._stock.register_instance(instance)

    @property
    def socket_path(self) -> Path:
        """Return the path of the run server's socket."""
        if self._socket:
            return Path(self._socket)
        return default_socket(os.environ.get("DAGSTER_HOME") or self._instance.root_directory)

    @property
    def records(self) -> Path:
        """Return the folder of the records of runs' processes."""
        return records_folder(self.socket_path)

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return RunServerClient(self.socket_path, self._timeout_s).ask(command, **arguments)

    # --- launching and resuming

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's process; when this returns, the run has exactly one process."""
        run = context.dagster_run
        try:
            self._start(run, is_resumed=False)
        except RunServerGoneError as error:
            if not self._has_fallback or context.workspace is None:
                raise
            self._instance.report_engine_event(
                f"The run is launched by DefaultRunLauncher: {error.message}", run, cls=WarmRunLauncher
            )
            self._stock.launch_run(context)

    @property
    def supports_resume_run(self) -> bool:
        """Return True: the concurrent executor can resume runs."""
        return True

    def resume_run(self, context: ResumeRunContext) -> None:
        """Start a new process for a run whose old process is gone."""
        # Imported here, because the import takes time, and only the daemon calls this; it has the module already.
        from bonseyes_dagster.execution.runs.run_recovery import (
            MAX_ATTEMPTS_WITHOUT_PROGRESS,
            attempts_without_progress,
            fail_run,
        )

        run = context.dagster_run
        if not was_launched(self._instance, run.run_id):
            return
        # The count includes this attempt.
        if attempts_without_progress(self._instance, run.run_id) > MAX_ATTEMPTS_WITHOUT_PROGRESS:
            fail_run(self._instance, run, "The run had no process.")
            return
        try:
            self._start(run, is_resumed=True)
        except RunServerGoneError as error:
            if not self._has_fallback:
                raise
            self._instance.report_engine_event(
                f"The run resumes in a process that loads everything first: {error.message}", run, cls=WarmRunLauncher
            )
            self._start_cold(run)

    def _start(self, run: DagsterRun, *, is_resumed: bool) -> None:
        storage = storage_id(self._instance)
        try:
            self._ask("launch", run_id=run.run_id, storage=storage, resume=is_resumed)
        except RunServerAnswerError:
            # The server may have died after it started the process and before it answered.
            if not read_record(self.records, run.run_id)[1]:
                raise

    def _start_cold(self, run: DagsterRun) -> None:
        module = "bonseyes_dagster.execution.processes.run_worker"
        command = [
            sys.executable,
            "-P",
            "-m",
            module,
            "--folder",
            str(self.records),
            "--run-id",
            run.run_id,
            "--resume",
        ]
        environment = {**os.environ, "DAGSTER_HOME": self._instance.root_directory}
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, close_fds=True
        )
        self._cold.add(run.run_id)

        def wait() -> None:
            process.wait()
            self._cold.discard(run.run_id)

        # Wait for the process, so that it does not stay a zombie.
        threading.Thread(target=wait, name=f"wait for run {run.run_id}", daemon=True).start()

    # --- ending

    def terminate(self, run_id: str) -> bool:
        """Send a run SIGTERM; after the grace period its process group gets SIGKILL."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        record, is_alive = read_record(self.records, run_id)
        if GRPC_INFO_TAG in run.tags and (record is None or not record.is_dedicated):
            is_terminated = bool(self._stock.terminate(run_id))
            if is_terminated or record is None:
                return is_terminated
        is_failed = run.status is DagsterRunStatus.CANCELING and fail_run_that_took_too_long(self._instance, run)
        if run.status is not DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        try:
            self._ask("terminate", run_id=run_id)
        except (RunServerGoneError, RunServerAnswerError):
            self._terminate_here(run, record, is_alive)
        # On True, the run monitoring would fail the run a second time.
        return not is_failed

    def _terminate_here(self, run: DagsterRun, record: ProcessRecord | None, is_alive: bool) -> None:
        """Stop a run without the run server, if its process is on this machine; the next run server does the rest."""
        if not is_alive:
            self._close_run(run)
        elif record is not None and record.is_dedicated and record.send(signal.SIGTERM):
            threading.Thread(target=self._kill_after_grace, args=(run, record), daemon=True).start()

    def _kill_after_grace(self, run: DagsterRun, record: ProcessRecord) -> None:
        deadline = time.monotonic() + self._grace_s
        while record.names_a_process() and time.monotonic() < deadline:
            time.sleep(0.1)
        if record.send(signal.SIGKILL, to_group=True):
            time.sleep(0.5)
        self._close_run(run)

    def _close_run(self, run: DagsterRun) -> None:
        final = self._instance.get_run_by_id(run.run_id)
        if final is not None and not final.is_finished:
            cancel_run(self._instance, final)
        elif final is not None and not final.is_success:
            close_steps(self._instance, final, "The run's process was stopped.")

    # --- checking

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Return True: Dagster's run monitoring may check runs."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Tell whether the run has a process, or gets one."""
        record, is_alive = read_record(self.records, run.run_id)
        if is_alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(record.pid) if record else None)
        if run.run_id in self._cold:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "The run's process is loading.")
        if record is None and GRPC_INFO_TAG in run.tags:
            return self._check_stock(run)
        if not was_launched(self._instance, run.run_id):
            return self._check_unlaunched(run, record)
        try:
            answer = self._ask("status", run_id=run.run_id)
        except RunServerAnswerError as error:
            return CheckRunHealthResult(
                WorkerStatus.RUNNING, f"The state of the run is not known: {error.message}", transient=True
            )
        except RunServerGoneError as error:
            if not self.records.is_dir():
                # The runs of another machine: only processes that share the folder of records know them.
                return CheckRunHealthResult(
                    WorkerStatus.RUNNING, f"The state of the run is not known: {error.message}", transient=True
                )
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The run has no process, and there is no run server.")
        if answer["alive"]:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        current = self._instance.get_run_by_id(run.run_id)
        if current is not None and current.is_finished:
            return CheckRunHealthResult(WorkerStatus.SUCCESS)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The run has no process.")

    def _check_unlaunched(self, run: DagsterRun, record: ProcessRecord | None) -> CheckRunHealthResult:
        """Fail a run that no launcher started, and whose process is gone; without a record, leave it alone."""
        if record is None:
            return CheckRunHealthResult(
                WorkerStatus.RUNNING, "The state of the run is not known: no launcher started it."
            )
        current = self._instance.get_run_by_id(run.run_id)
        if current is not None and not current.is_finished:
            fail_unlaunched(self._instance, current)
        return CheckRunHealthResult(WorkerStatus.SUCCESS, "The run's process has ended.")

    def _check_stock(self, run: DagsterRun) -> CheckRunHealthResult:
        """Ask the code server about a run that DefaultRunLauncher started through it."""
        client_class, request_class, result_class = grpc_client_classes()
        where = json.loads(run.tags[GRPC_INFO_TAG])
        try:
            client = client_class(port=where.get("port"), socket=where.get("socket"), host=where.get("host"))
            reply = client.can_cancel_execution(request_class(run_id=run.run_id), timeout=10)
            is_alive = deserialize_value(reply, result_class).can_cancel
        except Exception as error:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"The run's code server is gone: {error}")
        if is_alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The run's code server does not have the run any more.")

    def join(self, timeout: int = 30) -> None:
        """Wait for runs of the stock launcher; the other runs are not children of this process."""
        self._stock.join(timeout)
