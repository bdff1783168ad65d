"""Start a container's real server for a test, and check afterwards that no process of it is left."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from bonseyes_dagster.client import Container
from bonseyes_dagster.urls import Collection
from tests.waiting import free_port

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = Path(__file__).parent / "tools" / "sample"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SERVE_MEMORY = """
import sys
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.web.server import serve
serve(sys.argv[2], sys.argv[1], settings=Settings.from_environ())
"""


class Difference(Enum):
    """How runs differ from artifacts by design; each value is the reason for a test that cannot hold."""

    FIXED_NAME = "A run keeps its name, which is in the names of its artifacts."
    OPTIONAL_NAME = "A run may go without a name and gets one."
    REUSE_BY_STEP = "A pipeline re-uses the artifacts of its steps, and each run is made by itself."
    CONCURRENT = "A pipeline has several runs at a time, and Dagster queues only those above its limit."


TWIN_RUNS = frozenset({Difference.FIXED_NAME, Difference.OPTIONAL_NAME})
PIPELINE_RUNS = frozenset(Difference)


@dataclass(kw_only=True)
class Server:
    """A running container: its URL and a session for requests; behind a gateway, the URL has a path.

    `step` names the step of a pipeline that makes an artifact of the sample tool; it is empty for the sample itself.
    A run has the sample's files, metrics and reasons below the name of the step.
    """

    url: str
    collection: Collection = "artifacts"
    step: str = ""
    differences: frozenset[Difference] = frozenset()
    session: requests.Session = field(default_factory=requests.Session)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    @property
    def prefix(self) -> str:
        """Return the path below which a gateway publishes it; "" without a gateway."""
        return urlsplit(self.url).path

    @property
    def container(self) -> Container:
        """Return a client."""
        return Container(self.url, retry_s=5, kind=self.collection)

    def skip_for(self, difference: Difference) -> None:
        """Skip the test if the server differs in this way."""
        if difference in self.differences:
            pytest.skip(difference.value)

    @property
    def log_delay_s(self) -> float:
        """Return how long a line may wait: a step looks at its tool's log every two seconds."""
        return 2.0 if self.step else 0.0

    def path(self, file: str) -> str:
        """Return the path in the data of a file that the sample made."""
        return f"{self.step}/{file}" if self.step else file

    def paths(self, *files: str) -> list[str]:
        """Return the paths of all data when the sample made these files; a run adds its provenance."""
        return sorted([*map(self.path, files), *(["run.json"] if self.step else [])])

    def file_url(self, name: str) -> str:
        """Return where the only file that the sample made is, below the collection."""
        return f"{name}/data/{self.path('file.txt')}" if self.step else f"{name}/data"

    def metrics(self, *metrics: str) -> list[str]:
        """Return the names of all metrics when the sample has these; a run adds the duration of the step."""
        return [f"{self.step}.{metric}" for metric in ("duration_s", *metrics)] if self.step else list(metrics)

    def points(self, values: Sequence[float]) -> list[tuple[int, float]]:
        """Return step and value of each point of a metric of the sample; a run has the last value alone."""
        return [(0, values[-1])] if self.step else list(enumerate(values))

    def reason(self, text: str) -> str:
        """Return the reason of a failure for which the sample gives this text."""
        return f"{self.step}: {text}" if self.step else text

    def artifact_urls(self, name: str) -> list[str]:
        """Return the URLs of the artifacts that a run made."""
        return [f"http://sample/artifacts/{name}_{self.step}"] if self.step else []

    def new_name(self) -> str:
        """Return an unused name."""
        return f"n{next(self._numbers)}-{time.monotonic_ns():x}"

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request; a path without a leading slash is below the collection."""
        url = self.url + (path if path.startswith("/") else f"/{self.collection}/{path}")
        return self.session.request(method, url, timeout=30, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        """Send a GET."""
        return self.request("GET", path, **options)

    def create(self, *, name: str | None = None, headers: Mapping[str, str] | None = None, **parameters: Any) -> str:
        """Create an artifact with a JSON body; return its name."""
        name = name or self.new_name()
        body = {"name": name, "parameters": parameters}
        answer = self.request("POST", f"/{self.collection}", json=body, headers=dict(headers or {}))
        assert answer.status_code == 200, answer.text
        return name

    def wait(self, name: str) -> dict[str, Any]:
        """Return the final status."""
        status = self.get(f"{name}/status", params={"wait": "25"}).json()
        assert status["result"] != "in-progress", status
        return status

    def made(self, **parameters: Any) -> str:
        """Create an artifact and wait until it is completed; return its name."""
        name = self.create(**parameters)
        status = self.wait(name)
        assert status["phase"] == "completed", status
        return name

    def send(self, data: bytes, *, wait_s: float = 10.0) -> socket.socket:
        """Send the raw bytes of a request on a new connection, and return the connection.

        The path in its first line is a path of the container; this method adds the prefix.
        """
        connection = socket.create_connection(self.address, timeout=wait_s)
        connection.sendall(data.replace(b" /", b" " + self.prefix.encode() + b"/", 1))
        return connection

    def exchange(self, data: bytes) -> bytes:
        """Send the raw bytes of a request; return all bytes until the answer is complete or the connection ends."""
        with self.send(data) as connection:
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while not _is_whole(answer) and (piece := connection.recv(65536)):
                    answer += piece
            return answer


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.removeprefix(CONTINUE).partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    return bool(end and length and len(body) >= int(length[1]))


@dataclass(kw_only=True)
class ServerProcess(Server):
    """A server process on this machine."""

    process: subprocess.Popen[bytes]
    log: Path


def memory_argv(bind: str) -> list[str]:
    """Return the command line of the in-memory server."""
    return [sys.executable, "-c", _SERVE_MEMORY, bind, "tests.contract.memory_app:from_environ()"]


def tool_argv(bind: str) -> list[str]:
    """Return the command line of a tool container."""
    return [sys.executable, "-m", "bonseyes_dagster.tool", "--bind", bind]


def pipeline_argv(bind: str) -> list[str]:
    """Return how a pipeline container is served."""
    return [sys.executable, "-m", "bonseyes_dagster.pipeline", "--bind", bind]


def image_argv(bind: str) -> list[str]:
    """Return the command line of a tool container in its image, with the same restrictions as in docker."""
    closed = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--init"]
    volumes = [f"--volume={SAMPLE}:/sample:ro", "--volume=/volume"]  # Docker removes the second one with the container
    limits = ["--env=BONSEYES_UPLOAD_LIMIT_BYTES", "--env=BONSEYES_THREADS", "--env=BONSEYES_PROCESSES"]
    limits.append("--env=BONSEYES_ALLOWED_HOSTS")
    tool = ["--env=BONSEYES_TOOL=/sample", "bonseyes/tool:latest"]
    return ["docker", "run", "--rm", f"--publish={bind}:80", *closed, *volumes, *limits, *tool]


@contextlib.contextmanager
def serving(
    argv_of: Callable[[str], list[str]],
    folder: Path,
    environ: Mapping[str, str] | None = None,
    *,
    bind: str | None = None,
    collection: Collection = "artifacts",
    step: str = "",
    differences: frozenset[Difference] = frozenset(),
) -> Iterator[ServerProcess]:
    """Run the server that `argv_of(bind)` starts; at the end, SIGTERM must leave no process of it."""
    bind = bind or f"127.0.0.1:{free_port()}"
    log = folder / "server.log"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BONSEYES_PROCESSES": "1", **(environ or {})}
    env.setdefault("BONSEYES_ALLOWED_HOSTS", "x")  # the Host header of requests that tests write as bytes
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv_of(bind), stdout=out, stderr=subprocess.STDOUT, cwd=folder, env=env, start_new_session=True
        )
    server = ServerProcess(
        url=f"http://{bind}", collection=collection, step=step, differences=differences, process=process, log=log
    )
    try:
        await_ready(server)
        yield server
    finally:
        server.session.close()
        stop(server)
        shutil.rmtree(folder / "memory", ignore_errors=True)


def await_ready(server: ServerProcess, wait_s: float = 90.0) -> None:
    """Return when it answers; fail with its log when it ends or takes too long."""
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        if server.process.poll() is not None:
            break
        # uWSGI accepts connections before it has an application, so a request may also time out.
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{server.url}/healthz", timeout=5).status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the server did not become ready:\n{server.log.read_text()[-4000:]}")


def stop(server: ServerProcess, wait_s: float = 20.0) -> float:
    """End it by SIGTERM; return the duration in seconds. No process of it may be left."""
    family = processes_of(server)
    began = time.monotonic()
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(wait_s)
    except subprocess.TimeoutExpired:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        raise
    took_s = time.monotonic() - began
    assert_gone(family)
    return took_s


def processes_of(server: ServerProcess) -> list[psutil.Process]:
    """Return the server's processes."""
    try:
        master = psutil.Process(server.process.pid)
        return [master, *master.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def assert_gone(family: list[psutil.Process], wait_s: float = 5.0) -> None:
    """Fail if one of the processes still exists after a while, and kill it."""
    _, alive = psutil.wait_procs(family, timeout=wait_s)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    for process in alive:
        process.kill()
    assert not alive, f"left behind: {alive}"
