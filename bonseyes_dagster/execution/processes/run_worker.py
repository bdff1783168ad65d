"""The process of a run.

The run server forks one for each run. `python -m` starts one without the run server, and in a container. The process
does the same as `dagster api execute_run` and `resume_run`. It first locks the run's record, so that the run has no
second process. It exits without Python's finalisation, so that ops which cannot be interrupted do not delay it.
"""

import argparse
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus

from bonseyes_dagster.execution.launching.run_protocol import default_socket, records_folder
from bonseyes_dagster.execution.processes.dagster_internals import (
    _execute_run_command_body,
    _resume_run_command_body,
    capture_interrupts,
)
from bonseyes_dagster.execution.runs.process_record import RecordLock
from bonseyes_dagster.execution.storage.sqlite_storage import with_kept_open_connections
from bonseyes_dagster.execution.threads.multiprocess_resume import resume_multiprocess
from bonseyes_dagster.execution.threads.step_streams import route_streams
from bonseyes_dagster.system.prctl import set_process_name

__all__ = ["STARTED", "TAKEN", "WAIT_SIGNALS", "execute_run", "open_worker_instance", "restore_signals"]

STARTED = b"S"
TAKEN = b"T"
# Blocked from before the fork until the child has the signal handlers of a run.
WAIT_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}


def open_worker_instance(instance: DagsterInstance) -> DagsterInstance:
    """Open the same instance with the storages of run processes: their connections stay open."""
    ref = with_kept_open_connections(instance.get_ref())
    if ref.storage_data is not None and "Postgres" in ref.storage_data.class_name:
        # Imported here, because a project with SQLite needs no driver for Postgres.
        from bonseyes_dagster.execution.storage.postgres_storage import with_pooled_connections

        ref = with_pooled_connections(ref)
    return DagsterInstance.from_ref(ref)


def execute_run(
    instance: DagsterInstance,
    folder: Path,
    run_id: str,
    *,
    is_resumed: bool,
    report: Callable[[bytes], None] = lambda _: None,
    log: Path | None = None,
) -> int:
    """Execute a run to its end in this process and return the exit code.

    It calls `report` with STARTED when it has locked the run's record. It calls it with TAKEN if it gets no lock.
    `log` is the file for the process's own output.
    """
    _reset_handlers()
    with capture_interrupts():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAIT_SIGNALS)
        if not RecordLock(folder, run_id).acquire():
            report(TAKEN)
            return 0
        if is_resumed and not _is_in_progress(instance, run_id):
            return 0  # another process completed the run while this one loaded
        set_process_name(f"run {run_id[:8]}")
        # `kill -USR1` prints the stack of each thread to the process's output.
        faulthandler.register(signal.SIGUSR1, file=2)
        report(STARTED)
        if log is not None:
            _write_output_to(log)
        route_streams()
        # The third argument would print the events for a parent that reads them.
        if not is_resumed:
            return int(_execute_run_command_body(run_id, instance, lambda event: None, False))
        with resume_multiprocess(instance, run_id):
            return int(_resume_run_command_body(run_id, instance, lambda event: None, False))


def _is_in_progress(instance: DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status in (DagsterRunStatus.STARTING, DagsterRunStatus.STARTED)


def restore_signals() -> None:
    """Give a forked process the signal handlers and the signal mask of a new program."""
    _reset_handlers()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WAIT_SIGNALS)


def _reset_handlers() -> None:
    """Set the signal handlers of a new program. Dagster handles SIGTERM in the same way as SIGINT."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _write_output_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def main() -> None:
    """Load Dagster and the definitions, then execute or resume one run."""
    parser = argparse.ArgumentParser(description="Execute one run of the instance at DAGSTER_HOME.")
    parser.add_argument("--folder", type=Path, help="Folder of the records; below DAGSTER_HOME by default.")
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    instance = open_worker_instance(DagsterInstance.get())
    folder = options.folder or records_folder(default_socket(instance.root_directory))
    code = execute_run(instance, folder, options.run_id, is_resumed=options.resume)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
