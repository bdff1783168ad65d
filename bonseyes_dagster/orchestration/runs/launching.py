"""Starts runs: creates a run in Dagster's storage and gives it to the coordinator. `pipeline/runs.py` calls it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster import DagsterError, DagsterInstance, DagsterRunStatus

from bonseyes_dagster.errors import ConflictError, UnavailableError
from bonseyes_dagster.orchestration.runs.dagster_internals import (
    CodeLocation,
    DagsterRunAlreadyExists,
    RemoteJob,
    RemoteRepository,
    WorkspaceFileTarget,
    WorkspaceProcessContext,
    WorkspaceRequestContext,
    _create_run,
)
from bonseyes_dagster.orchestration.runs.run_locks import RunLocks

__all__ = ["RunStarter"]


class RunStarter:
    """Starts runs of one job as Dagster's webserver does, through the code servers of the workspace file.

    It opens the workspace at the first use, because a server process that forks must not have a gRPC thread.
    """

    def __init__(self, instance: DagsterInstance, workspace: Path, job_name: str, start_locks: RunLocks) -> None:
        self._instance = instance
        self._file = workspace
        self._job_name = job_name
        self._lock = threading.Lock()
        self._start_locks = start_locks
        self._process_context: WorkspaceProcessContext | None = None
        self._stamp: tuple[int, int] | None = None

    def check(self) -> None:
        """Raise UnavailableError with the reason if no run can be launched now."""
        self._find(self._context())

    def close(self) -> None:
        """Close the connections to the code servers."""
        with self._lock:
            former, self._process_context = self._process_context, None
        if former is not None:
            former.__exit__(None, None, None)

    def start(self, *, run_id: str, run_config: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Create and launch a run; delete it again if it cannot be launched.

        Raises ConflictError if the run exists, UnavailableError if Dagster cannot launch.
        """
        with self._start_locks.hold(run_id):
            self._create(run_id, run_config, tags)

    def launch_again(self, run_id: str) -> None:
        """Launch a run that another process created and did not launch; wait for a thread that is starting it.

        Raises UnavailableError if Dagster cannot launch. The run may be gone afterwards.
        """
        with self._start_locks.hold(run_id):
            run = self._instance.get_run_by_id(run_id)
            if run is not None and run.status is DagsterRunStatus.NOT_STARTED:
                self._launch(run_id, self._context())

    def _create(self, run_id: str, run_config: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        context = self._context()
        location, repository, job = self._find(context)
        try:
            _create_run(
                instance=self._instance,
                code_location=location,
                remote_repo=repository,
                remote_job=job,
                run_config=run_config,
                tags=tags,
                op_selection=None,
                run_id=run_id,
            )
        except DagsterRunAlreadyExists as error:
            raise ConflictError("There is a run of that name.") from error
        except DagsterError as error:
            raise UnavailableError(f"Dagster's code server cannot plan the run: {error}") from error
        is_launched = False
        try:
            self._launch(run_id, context)
            is_launched = True
        finally:
            if not is_launched:
                self._instance.delete_run(run_id)

    def _launch(self, run_id: str, context: WorkspaceRequestContext) -> None:
        try:
            self._instance.submit_run(run_id, context)
        except (DagsterError, OSError) as error:
            raise UnavailableError(f"Dagster cannot launch the run: {error}") from error

    def _context(self) -> WorkspaceRequestContext:
        with self._lock:
            stamp = self._stamp_of_file()
            if self._process_context is None or stamp != self._stamp:
                # A restarted code server may listen at another address.
                former, self._stamp = self._process_context, stamp
                self._process_context = WorkspaceProcessContext(self._instance, WorkspaceFileTarget([str(self._file)]))
                if former is not None:
                    former.__exit__(None, None, None)
            return self._process_context.create_request_context()

    def _stamp_of_file(self) -> tuple[int, int]:
        try:
            stat = self._file.stat()
        except FileNotFoundError:
            raise UnavailableError(f"There is no workspace file {self._file} yet.") from None
        return stat.st_mtime_ns, stat.st_ino

    def _find(self, context: WorkspaceRequestContext) -> tuple[CodeLocation, RemoteRepository, RemoteJob]:
        reasons = []
        for name in context.code_location_names:
            if not context.has_code_location(name):
                context = self._reloaded(name)
            if not context.has_code_location(name):
                error = context.get_code_location_error(name)
                reasons.append(f"{name}: {error.message.strip() if error else 'not loaded'}"[:1000])
                continue
            location = context.get_code_location(name)
            for repository in location.get_repositories().values():
                if repository.has_job(self._job_name):
                    return location, repository, repository.get_full_job(self._job_name)
            reasons.append(f"{name} has no job {self._job_name}")
        raise UnavailableError(f"Dagster cannot run the pipeline: {'; '.join(reasons) or 'its workspace is empty'}.")

    def _reloaded(self, location: str) -> WorkspaceRequestContext:
        """Connect again to a code server that did not answer when the workspace was opened."""
        with self._lock:
            assert self._process_context is not None  # _context has opened it
            self._process_context.refresh_code_location(location)
            return self._process_context.create_request_context()
