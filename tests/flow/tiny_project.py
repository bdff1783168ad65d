"""Runs the project in `tiny/` for tests: its tools as real containers, its Dagster instance in a folder of the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bonseyes_dagster.client import Container

PROJECT = Path(__file__).parent / "tiny"
TOOLS = ("load", "learn", "judge")
START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class TinyProject:
    """The running containers of one test module."""

    root: Path
    addresses: Path
    servers: dict[str, subprocess.Popen[bytes]]

    @property
    def environment(self) -> dict[str, str]:
        """Return what a process of the project finds in its environment."""
        return {"BONSEYES_ADDRESSES": str(self.addresses), "BONSEYES_PROJECT": str(PROJECT)}

    def container(self, name: str) -> Container:
        """Return the client of one of the tools."""
        return Container(json.loads(self.addresses.read_text())[name], name=name, kind="artifacts")

    def archive(self, name: str, content: bytes) -> Path:
        """Write an archive."""
        path = self.root / name
        path.write_bytes(content)
        return path


@contextmanager
def running_tools(root: Path, tools: tuple[str, ...] = TOOLS) -> Iterator[TinyProject]:
    """Serve the tools on ports of their own until the end of the block."""
    ports = {name: free_port() for name in tools}
    addresses = root / "addresses.json"
    addresses.write_text(json.dumps({name: f"http://127.0.0.1:{port}" for name, port in ports.items()}))
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving_tool(root, name, port, addresses)) for name, port in ports.items()}
        project = TinyProject(root, addresses, servers)
        for name in tools:
            wait_until_healthy(project.container(name), servers[name])
        yield project


@contextmanager
def serving_tool(root: Path, name: str, port: int, addresses: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Serve one tool."""
    environment = {
        "BONSEYES_TOOL": str(PROJECT / "containers" / name),
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


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
