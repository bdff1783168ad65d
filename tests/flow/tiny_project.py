"""Runs the project in `tiny/`, or another, for tests: its tools as real containers, its Dagster in a folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bonseyes_dagster.client import Container
from bonseyes_dagster.execution.storage.instance import LOCATION, write_instance, write_workspace
from bonseyes_dagster.execution.storage.migration import bring_up_to_date
from tests.waiting import free_port

PROJECT = Path(__file__).parent / "tiny"
TOOLS = ("load", "learn", "judge")
START_TIMEOUT_S = 90.0  # tests may share their two cores with many others


@dataclass(frozen=True)
class TinyProject:
    """The running containers of one test module."""

    root: Path
    addresses: Path
    servers: dict[str, subprocess.Popen[bytes]]
    stack: ExitStack
    folder: Path = PROJECT

    @property
    def environment(self) -> dict[str, str]:
        """Return what a process of the project finds in its environment."""
        return {
            "BONSEYES_ADDRESSES": str(self.addresses),
            "BONSEYES_PROJECT": str(self.folder),
            "BONSEYES_FILES": str(self.root),
        }

    def container(self, name: str) -> Container:
        """Return the client of one of the tools."""
        return Container(json.loads(self.addresses.read_text())[name], name=name, kind="artifacts")

    def kill(self, name: str) -> None:
        """Kill a tool, without a chance to clean up."""
        self.servers[name].kill()
        self.servers[name].wait(10)

    def start_again(self, name: str) -> None:
        """Restart a killed tool, with its port and its volume."""
        port = int(self.container(name).base_url.rpartition(":")[2])
        server = self.stack.enter_context(serving_tool(self.root, name, port, self.addresses, self.folder))
        self.servers[name] = server
        wait_until_healthy(self.container(name), server)

    def archive(self, name: str, content: bytes) -> Path:
        """Write an archive."""
        path = self.root / name
        path.write_bytes(content)
        return path


@contextmanager
def running_tools(root: Path, tools: tuple[str, ...] = TOOLS, folder: Path = PROJECT) -> Iterator[TinyProject]:
    """Serve the tools of the project in `folder` on ports of their own until the end of the block."""
    ports = {name: free_port() for name in tools}
    addresses = root / "addresses.json"
    addresses.write_text(json.dumps({name: f"http://127.0.0.1:{port}" for name, port in ports.items()}))
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serving_tool(root, name, port, addresses, folder)) for name, port in ports.items()
        }
        project = TinyProject(root, addresses, servers, stack, folder)
        for name in tools:
            wait_until_healthy(project.container(name), servers[name])
        yield project


@contextmanager
def serving_tool(
    root: Path, name: str, port: int, addresses: Path, folder: Path = PROJECT
) -> Iterator[subprocess.Popen[bytes]]:
    """Serve one tool."""
    environment = {
        "BONSEYES_TOOL": str(folder / "containers" / name),
        "BONSEYES_VOLUME": str(root / "volumes" / name),
        "BONSEYES_ADDRESSES": str(addresses),
        "BONSEYES_PROCESSES": "1",
        "BONSEYES_THREADS": "16",
    }
    with serving("bonseyes_dagster.tool", port, environment, root / f"{name}.log") as server:
        yield server


@contextmanager
def serving(module: str, port: int, environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m module --bind` until the end of the block."""
    with log.open("ab") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", module, "--bind", f"127.0.0.1:{port}"],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield server
    finally:
        stop(server)


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server gracefully, or else by force."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        server.wait(15)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(5)


def wait_until_healthy(container: Container, server: subprocess.Popen[bytes]) -> None:
    """Return when a container answers; fail when its process ends."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not container.is_healthy():
        if server.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{container.base_url} did not start (exit code {server.poll()})")
        time.sleep(0.05)


@dataclass(frozen=True)
class TinyDagster:
    """Dagster's side of the project: its home, its servers, and how to start another."""

    project: TinyProject
    home: Path
    code_port: int
    code_server: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """Return what a process needs to be one of Dagster's."""
        return {**self.project.environment, **dagster_environment(self.home)}

    @contextmanager
    def serving_code(self) -> Iterator[None]:
        """Run the code server again after it was killed, at its port."""
        with background(
            code_server_arguments(self.code_port, self.project.folder), self.environment, self.project.root / "code.log"
        ):
            wait_until(lambda: is_listening(self.code_port), "the code server")
            yield

    @contextmanager
    def serving_pipeline(self, name: str, port: int | None = None) -> Iterator[Container]:
        """Serve a pipeline until the end of the block."""
        with self.pipeline_server(name, port or free_port()) as (container, _):
            yield container

    @contextmanager
    def pipeline_server(self, name: str, port: int) -> Iterator[tuple[Container, subprocess.Popen[bytes]]]:
        """Serve a pipeline, and yield its process."""
        environment = {
            **self.environment,
            "BONSEYES_PIPELINE": name,
            "BONSEYES_VOLUME": str(self.project.root / "volumes" / name),
        }
        log = self.project.root / f"{name}.log"
        with serving("bonseyes_dagster.pipeline", port, environment, log) as server:
            container = Container(f"http://127.0.0.1:{port}", name=name, kind="runs")
            wait_until_healthy(container, server)
            yield container, server


@contextmanager
def running_dagster(project: TinyProject, postgres: str | None = None) -> Iterator[TinyDagster]:
    """Run a code server and a run server over an instance of its own; its runs are in the database, if one is given."""
    home = project.root / "home"
    write_instance(home, postgres=postgres)
    bring_up_to_date(home, postgres=postgres)
    port = free_port()
    write_workspace(home, port=port)
    folder = project.folder
    definitions = ["-f", str(folder / "definitions.py"), "-d", str(folder)]
    runs = ["bonseyes_dagster.orchestration.run_server", *definitions, "--on-stop", "terminate"]
    environment = {**project.environment, **dagster_environment(home)}
    with (
        background(code_server_arguments(port, folder), environment, project.root / "code.log") as code_server,
        background(runs, environment, project.root / "runs.log"),
    ):
        wait_until(lambda: (home / "run_server" / "socket").exists(), "the run server")
        yield TinyDagster(project, home, port, code_server)


def dagster_environment(home: Path) -> dict[str, str]:
    """Return what makes a process use this instance."""
    return {"DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "yes"}


def code_server_arguments(port: int, folder: Path = PROJECT) -> list[str]:
    """Return the module and arguments of the code server."""
    file = str(folder / "definitions.py")
    return ["dagster", "api", "grpc", "-f", file, "-h", "127.0.0.1", "-p", str(port), "--location-name", LOCATION]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return when a condition is met; fail when it takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not start"
        time.sleep(0.05)


def is_listening(port: int) -> bool:
    """Tell whether a server accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def background(arguments: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m` until the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env={**os.environ, **environment}, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        stop(process)
