"""A Dagster project for tests of launchers: an instance, a code server and, when wanted, run servers; all real."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._cli.job import _create_run
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from bonseyes_dagster.orchestration.instance import write_instance
from bonseyes_dagster.orchestration.run_protocol import RunServerClient, RunServerGoneError, default_socket

JOBS = Path(__file__).parent / "launcher_jobs.py"
PATIENCE_S = 60.0
# The ops that note what they do.
NOTING = {
    "waiting": ["first", "wait_for_release", "last"],
    "stubborn": ["sleep_on"],
    "involved": ["flaky", "wait_for_release", "total"],
}


def wait_until(condition: Callable[[], Any], timeout_s: float = PATIENCE_S, every_s: float = 0.02) -> Any:
    """Return the first true value of `condition`; fail when it never comes."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(every_s)
    raise AssertionError(f"not within {timeout_s} s: {condition}")


def free_port() -> int:
    """Return a port that nobody listens on now."""
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
        process.wait(30)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class RunServerProcess:
    """A run server of a project, as `python -m` starts it."""

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
        """Wait for an answer."""
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
        """End it, in the way that `number` says."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(30)


class LaunchingProject:
    """What a test does with its project."""

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

    def create(self, job: str, **tags: str) -> str:
        """Create a run; all ops of `job` that note things do so in the project's folder."""
        config: dict[str, Any] = {
            "ops": {name: {"config": {"folder": str(self.folder)}} for name in NOTING.get(job, [])}
        }
        remote_job = self._repository.get_full_job(job)
        run = _create_run(
            self.instance, self._location, self._repository, remote_job, config, tags, op_selection=None, run_id=None
        )
        return run.run_id

    def launch(self, job: str, **tags: str) -> str:
        """Create a run and launch it through the instance, as everything in Dagster does."""
        run_id = self.create(job, **tags)
        self.instance.launch_run(run_id, self.context.create_request_context())
        return run_id

    def run(self, run_id: str) -> DagsterRun:
        """Read a run."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def wait(self, run_id: str, timeout_s: float = PATIENCE_S) -> DagsterRunStatus:
        """Wait for a run's end and return its status."""
        wait_until(lambda: self.run(run_id).is_finished, timeout_s)
        return self.run(run_id).status

    def notes(self) -> list[str]:
        """Return what ops have noted."""
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def pids(self) -> list[int]:
        """Return the processes whose ops are or were waiting, oldest first."""
        return [int(line.split()[1]) for line in self.notes() if line.startswith("waiting ")]

    def wait_for_pid(self, count: int = 1) -> int:
        """Wait until ops have waited `count` times; return the last one's process."""
        wait_until(lambda: len(self.pids()) >= count)
        return self.pids()[-1]

    def release(self) -> None:
        """Let waiting ops go on."""
        (self.folder / "release").touch()

    def messages(self, run_id: str) -> str:
        """Return a run's log as text."""
        return "\n".join(entry.message or entry.user_message for entry in self.instance.all_logs(run_id))

    def close(self) -> None:
        """End what is left of it."""
        for server in self.servers:
            server.stop()
        self.kill_waiting()

    def kill_waiting(self) -> None:
        """End runs that a failed test has left waiting."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@contextmanager
def launching_project(
    folder: Path, port: int, *, launcher: Any = "warm", jobs: Path = JOBS
) -> Iterator[LaunchingProject]:
    """Make a project whose instance has the given launcher, on a code server."""
    home = folder / "home"
    write_instance(home, launcher=launcher)
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="definitions")
    with ExitStack() as stack:
        instance = stack.enter_context(DagsterInstance.from_config(str(home)))
        context = stack.enter_context(WorkspaceProcessContext(instance, target))
        project = LaunchingProject(folder, instance, context, jobs)
        stack.callback(project.close)
        yield project


def own_jobs(folder: Path) -> Path:
    """Copy the jobs, for a test that changes them."""
    return Path(shutil.copy(JOBS, folder / "own_jobs.py"))
