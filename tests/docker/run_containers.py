"""A project whose runs have containers: a real engine launches test jobs, through the real socket proxy.

The launcher, the run watch and the code server are processes of this machine. They and the containers share
DAGSTER_HOME, which is `/dagster` in the containers, and a Postgres.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from bonseyes_dagster.execution.containers.run_container import (
    HOME,
    LABEL,
    RUN_ID_LABEL,
    launcher_config,
    networks,
    volume,
)
from bonseyes_dagster.execution.storage.instance import write_instance
from bonseyes_dagster.execution.storage.migration import bring_up_to_date
from bonseyes_dagster.settings import Settings
from tests.docker.postgres import Postgres, docker
from tests.launching_project import free_port
from tests.unit.execution.launching import JOBS, LaunchingProject


class Process:
    """A service of a docker project as a process of this machine, which a test can kill and start again."""

    def __init__(self, log: Path, module: str, *arguments: str, **environ: str) -> None:
        self.log = log
        self._command = [sys.executable, "-m", module, *arguments]
        self._environ = {**os.environ, **environ}
        self.start()

    def start(self) -> None:
        """Start the process, also for a second time."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environ, stdout=log, stderr=log)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop the process."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait(30)


class ContainerProject(LaunchingProject):
    """A project whose runs have containers, with the actions of tests."""

    name: str
    proxy: Process
    watch: Process
    engine_port: int

    def config(self, job: str) -> dict[str, Any]:
        """Return a config that makes ops write their notes to a folder that both sides share."""
        config = super().config(job)
        for op in config["ops"].values():
            op["config"]["folder"] = f"{HOME}/{self.folder.relative_to(self.home)}"
        return config

    def containers(self, run_id: str = "", *, state: str = "") -> list[str]:
        """Return the ids of runs' containers."""
        label = f"{RUN_ID_LABEL}={run_id}" if run_id else f"{LABEL}={self.name}"
        states = [f"--filter=status={state}"] if state else []
        return docker("ps", "-aq", "--no-trunc", f"--filter=label={label}", *states).split()

    def kill(self, run_id: str) -> None:
        """Kill a run's container."""
        [container] = self.containers(run_id, state="running")
        docker("kill", container)

    def lives(self, run_id: str, pid: int) -> bool:
        """Tell whether a run's container is running; its process has a pid only in the container."""
        return bool(self.containers(run_id, state="running"))

    def kill_waiting(self) -> None:
        """Remove the containers of runs that a failed test has left waiting."""
        for container in self.containers():
            docker("rm", "-f", container, is_checked=False)


@contextmanager
def image_with_jobs() -> Iterator[tuple[str, Path]]:
    """Yield an image of the project with the tests' jobs, and the path of the jobs in it and on this machine.

    The path is not that of the checkout, which may be below `/tmp`: each container has its own `/tmp`.
    """
    build = [Path(sys.executable).with_name("bonseyes"), "build", "--quiet", "project"]
    subprocess.run(build, cwd=Path(__file__).parents[2], check=True, capture_output=True)
    name = f"bonseyes/test-runs:{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        jobs = Path(shutil.copy(JOBS, folder))
        text = f"FROM bonseyes/project\nCOPY --chmod=755 . {folder}\n"
        command = ["docker", "build", "-q", "-t", name, "-f", "-", folder]
        subprocess.run(command, input=text.encode(), check=True, capture_output=True)
        try:
            yield name, jobs
        finally:
            docker("rmi", name, is_checked=False)


@contextmanager
def container_project(
    folder: Path, port: int, image: str, jobs: Path, postgres: Postgres
) -> Iterator[ContainerProject]:
    """Make a project with the launcher, proxy and watch of a docker project; its code server listens at `port`."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    home = folder / "home"
    home.mkdir(mode=0o777)
    settings = Settings(compose_project=name, run_image=image)
    with ExitStack() as stack:
        stack.enter_context(_engine_objects(name, home, postgres))
        engine_port = free_port()
        _write(home, settings, engine_port, postgres.new_database(postgres.address(networks(name)[1])))
        environ = {"BONSEYES_COMPOSE_PROJECT": name, "BONSEYES_RUN_IMAGE": image, "DAGSTER_HOME": str(home)}
        stack.enter_context(_environ(DAGSTER_HOME=str(home)))
        address = f"127.0.0.1:{engine_port}"
        module = "bonseyes_dagster.docker.inside.socket_proxy"
        proxy = Process(folder / "proxy.log", module, "--bind", address, **environ)
        stack.callback(proxy.stop)
        watch = Process(folder / "watch.log", "bonseyes_dagster.orchestration.run_watch", **environ)
        stack.callback(watch.stop)
        target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="definitions")
        instance = stack.enter_context(DagsterInstance.from_config(str(home)))
        context = stack.enter_context(WorkspaceProcessContext(instance, target))
        project = ContainerProject(folder, instance, context, jobs)
        project.name, project.proxy, project.watch, project.engine_port = name, proxy, watch, engine_port
        project.folder = new_folder(project)
        stack.callback(project.close)
        yield project


def new_folder(project: ContainerProject) -> Path:
    """Make a folder for the ops' notes, in DAGSTER_HOME, so that containers can write to it."""
    folder = project.home / f"notes-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@contextmanager
def _engine_objects(name: str, home: Path, postgres: Postgres) -> Iterator[None]:
    """Make the networks and the volume that Compose would make."""
    made: list[tuple[str, ...]] = []
    try:
        for network in networks(name):
            docker("network", "create", network)
            made.append(("network", "rm", network))
        docker("network", "connect", networks(name)[1], postgres.name)
        made.append(("network", "disconnect", "-f", networks(name)[1], postgres.name))
        options = [f"--opt={each}" for each in ("type=none", "o=bind", f"device={home}")]
        docker("volume", "create", *options, volume(name))
        made.append(("volume", "rm", volume(name)))
        yield
    finally:
        for undo in reversed(made):
            docker(*undo, is_checked=False)


def _write(home: Path, settings: Settings, engine_port: int, postgres: str) -> None:
    """Write a dagster.yaml that is right for this machine and for the containers."""
    config = launcher_config(settings, {})
    config["engine_url"] = f"tcp://127.0.0.1:{engine_port}"
    file = write_instance(home, launcher="docker", launcher_config=config, postgres=postgres)
    content = yaml.safe_load(file.read_text())
    content["compute_logs"]["config"]["base_dir"] = {"env": "DAGSTER_HOME"}
    file.write_text(yaml.safe_dump(content))
    with _environ(DAGSTER_HOME=str(home)):
        bring_up_to_date(home, postgres=postgres)
    records = home / "run_server" / "runs"
    records.mkdir(parents=True)
    for path in (home, records.parent, records, *(each for each in home.rglob("*"))):
        path.chmod(0o777)  # the containers run as another user


@contextmanager
def _environ(**variables: str) -> Iterator[None]:
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
