"""A real Dagster project for tests and benchmarks of launchers and executors: instance, code server, run servers.

Open `code_server` and then `launching_project`. Call `serve_runs` for our launcher, then `launch` and `wait`.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._cli.job import _create_run
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from bonseyes_dagster.execution.launching.run_protocol import RunServerClient, RunServerGoneError, default_socket
from bonseyes_dagster.execution.storage.instance import write_instance
from bonseyes_dagster.execution.storage.migration import bring_up_to_date

__all__ = ["LaunchingProject", "RunServerProcess", "code_server", "free_port", "launching_project", "wait_until"]

PATIENCE_S = 60.0
_STOP_S = 30.0


def wait_until(condition: Callable[[], Any], timeout_s: float = PATIENCE_S, every_s: float = 0.02) -> Any:
    """Return the first true value of `condition`; fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(every_s)
    raise AssertionError(f"not within {timeout_s} s: {condition}")


def free_port() -> int:
    """Return a port at which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def code_server(jobs: Path) -> Iterator[int]:
    """Run Dagster's code server for the definitions; yield its port."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("dagster")), "api", "grpc", "-h", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen([*command, "-f", str(jobs), "-d", str(jobs.parent)], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _is_open(port))
        yield port
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            # The tests do not depend on how Dagster's server stops.
            process.kill()
            process.wait(_STOP_S)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class RunServerProcess:
    """A run server of a project, started by `python -m`."""

    def __init__(self, home: Path, jobs: Path, *options: str) -> None:
        self.socket = default_socket(home)
        self.log = home / "run_server.log"
        module = "bonseyes_dagster.orchestration.run_server"
        command = [sys.executable, "-m", module, "-f", str(jobs), "-d", str(jobs.parent), *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, "DAGSTER_HOME": str(home)}, stdout=log, stderr=log
            )
        self.ping()

    def ping(self) -> dict[str, Any]:
        """Wait until the server answers a ping; return the answer."""
        client = RunServerClient(self.socket)

        def answer() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return client.ask("ping")
            except RunServerGoneError:
                return None

        result: dict[str, Any] = wait_until(answer)
        return result

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the server a signal, and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(_STOP_S)


class LaunchingProject:
    """A project whose runs a test launches and waits for."""

    def __init__(self, folder: Path, instance: DagsterInstance, context: WorkspaceProcessContext, jobs: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.jobs = jobs
        self.instance = instance
        self.context = context
        self.servers: list[RunServerProcess] = []
        self._location = context.create_request_context().get_code_location("definitions")
        self._repository = next(iter(self._location.get_repositories().values()))

    def serve_runs(self, *options: str) -> RunServerProcess:
        """Start a run server."""
        server = RunServerProcess(self.home, self.jobs, *options)
        self.servers.append(server)
        return server

    def config(self, _job: str) -> dict[str, Any]:
        """Return the config of a job's runs; none, unless a subclass has one."""
        return {}

    def create(self, job: str, config: dict[str, Any] | None = None, **tags: str) -> str:
        """Create a run and return its id."""
        run = _create_run(
            self.instance,
            self._location,
            self._repository,
            self._repository.get_full_job(job),
            self.config(job) if config is None else config,
            tags,
            op_selection=None,
            run_id=None,
        )
        return str(run.run_id)

    def launch(self, job: str, config: dict[str, Any] | None = None, **tags: str) -> str:
        """Create a run, launch it through the instance like all of Dagster, and return its id."""
        run_id = self.create(job, config, **tags)
        self.instance.launch_run(run_id, self.context.create_request_context())
        return run_id

    def run(self, run_id: str) -> DagsterRun:
        """Return a run, read from the storage."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def wait(self, run_id: str, timeout_s: float = PATIENCE_S) -> DagsterRunStatus:
        """Wait for a run's end and return its status."""
        wait_until(lambda: self.run(run_id).is_finished, timeout_s)
        return self.run(run_id).status

    def messages(self, run_id: str) -> str:
        """Return a run's log as text."""
        return "\n".join(entry.message or entry.user_message for entry in self.instance.all_logs(run_id))

    def close(self) -> None:
        """Stop the run servers."""
        for server in self.servers:
            server.stop()


_P = TypeVar("_P", bound=LaunchingProject)


@contextmanager
def launching_project(
    folder: Path,
    port: int,
    *,
    jobs: Path,
    launcher: Any = "warm",
    postgres: str | None = None,
    kind: type[_P] = LaunchingProject,  # type: ignore[assignment]
) -> Iterator[_P]:
    """Create a project of the class `kind` in `folder`; its code server listens at `port`.

    Its runs are in SQLite, or in the database with the URL `postgres`.
    """
    home = folder / "home"
    write_instance(home, launcher=launcher, postgres=postgres)
    if postgres:
        bring_up_to_date(home, postgres=postgres)
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="definitions")
    with ExitStack() as stack:
        instance = stack.enter_context(DagsterInstance.from_config(str(home)))
        context = stack.enter_context(WorkspaceProcessContext(instance, target))
        project = kind(folder, instance, context, jobs)
        stack.callback(project.close)
        yield project
