"""A real tool container for tests: uWSGI with its processes on its own port; it ends with all its processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bonseyes_dagster.client import Container
from tests.waiting import free_port, until

TOOLS = Path(__file__).parent


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class ToolServer:
    """`python -m bonseyes_dagster.tool` for one tool and one volume; a test can end it and start it again."""

    def __init__(self, tool: str | Path, volume: Path, **settings: str) -> None:
        self.tool = TOOLS / tool
        self.volume = volume
        self.port = free_port()
        self.log = volume.with_name(f"{volume.name}.log")
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.container = Container(f"http://127.0.0.1:{self.port}", name=self.tool.name)

    @property
    def url(self) -> str:
        """Return its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> ToolServer:
        """Start and wait until it is healthy."""
        self.spawn()
        until(self._is_up, 40)
        return self

    def spawn(self) -> None:
        """Start without waiting."""
        environ = {
            **os.environ,
            "BONSEYES_TOOL": str(self.tool),
            "BONSEYES_VOLUME": str(self.volume),
            "BONSEYES_DISK_RESERVE_BYTES": "1000000",
            **self._settings,
        }
        command = [sys.executable, "-m", "bonseyes_dagster.tool", "--bind", f"127.0.0.1:{self.port}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        return self.container.is_healthy()

    @property
    def master(self) -> int:
        """Return the process id of uWSGI's master."""
        assert self._process is not None
        return self._process.pid

    @property
    def mule(self) -> int:
        """Return the process id of the worker that makes the artifacts."""
        return self._spawned("mule 1")[-1]

    @property
    def workers(self) -> list[int]:
        """Return the process ids of the server processes that are alive."""
        return [pid for number in (1, 2) for pid in self._spawned(f"worker {number}")[-1:]]

    def _spawned(self, what: str) -> list[int]:
        log = self.log.read_text(errors="replace")
        return [int(pid) for pid in re.findall(rf"spawned uWSGI {what} \((?:new )?pid: (\d+)", log)]

    def child(self) -> int:
        """Return the process id of the running artifact."""
        return until(lambda: [process.pid for process in psutil.Process(self.mule).children()])[0]

    def stop(self) -> None:
        """Send SIGTERM and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(40)
        self._process = None

    def kill(self) -> None:
        """Send SIGKILL to the master, and wait until all its processes have ended."""
        assert self._process is not None
        family = psutil.Process(self.master).children(recursive=True)
        servers = {self.mule, *self.workers}
        self._process.kill()
        self._process.wait(10)
        until(lambda: not any(is_alive(process.pid) for process in family if process.pid in servers))
        self._process = None

    def end(self) -> None:
        """Kill all remaining processes."""
        if self._process is None or self._process.poll() is not None:
            self._process = None
            return
        family = [psutil.Process(self.master), *psutil.Process(self.master).children(recursive=True)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(5)
        self._process = None


@contextmanager
def tool_server(tool: str | Path, volume: Path, **settings: str) -> Iterator[ToolServer]:
    """Serve a tool during the block."""
    server = ToolServer(tool, volume, **settings)
    try:
        yield server.start()
    finally:
        server.end()


@contextmanager
def tool_servers(folder: Path, *tools: str, **settings: str) -> Iterator[list[ToolServer]]:
    """Serve several tools, which find each other by an address file, during the block."""
    addresses = folder / "addresses.json"
    servers = [
        ToolServer(tool, folder / tool, BONSEYES_ADDRESSES=str(addresses), BONSEYES_CONTAINER=tool, **settings)
        for tool in tools
    ]
    addresses.write_text(json.dumps({server.tool.name: server.url for server in servers}))
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.end()
