"""Starts real servers for the measurements. Each server has its own folder and ends with all its processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from bonseyes_dagster.client import Container

TOOLS = Path(__file__).parent / "tools"


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(is_up: Callable[[], bool], process: subprocess.Popen[bytes], timeout_s: float = 60) -> None:
    """Wait until a server is up. Raise RuntimeError when its process ends and TimeoutError after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not is_up():
        if process.poll() is not None:
            raise RuntimeError(f"The server ended with status {process.returncode}.")
        if time.monotonic() > deadline:
            raise TimeoutError(f"The server is not up after {timeout_s} s.")
        time.sleep(0.02)


@contextmanager
def tool_container(name: str, volume: Path, **settings: str) -> Iterator[tuple[Container, psutil.Process]]:
    """Serve the tool in `benchmarks/tools/NAME` from `volume` with real uWSGI processes."""
    environ = {"BONSEYES_TOOL": str(TOOLS / name), "BONSEYES_VOLUME": str(volume)} | settings
    port = free_port()
    with _serving("tool", port, volume.parent / f"{name}.log", environ) as process:
        container = Container(f"http://127.0.0.1:{port}", name=name)
        wait_until(container.is_healthy, process)
        yield container, psutil.Process(process.pid)


@contextmanager
def pipeline_container(name: str, project: Path, home: Path) -> Iterator[Container]:
    """Serve the runs of a pipeline from the Dagster instance in `home`. Reading needs no code server."""
    environ = {"BONSEYES_PIPELINE": name, "BONSEYES_PROJECT": str(project), "DAGSTER_HOME": str(home)}
    environ |= {"BONSEYES_VOLUME": str(home / "uploads"), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    port = free_port()
    with _serving("pipeline", port, home.parent / f"{name}.log", environ) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(f"{url}/"), process)
        yield Container(url, name=name, kind="runs")


@contextmanager
def _serving(kind: str, port: int, log: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", f"bonseyes_dagster.{kind}", "--bind", f"127.0.0.1:{port}"]
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=os.environ | environ, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def nginx(root: Path) -> Iterator[str | None]:
    """Serve `root` with nginx and yield its base URL, or None if nginx is not installed."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as prefix:
        conf = Path(prefix) / "nginx.conf"
        places = "".join(
            f"{kind}_temp_path {prefix}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root; " if os.geteuid() == 0 else ""  # otherwise the workers drop root and cannot read `root`
        conf.write_text(
            f"daemon off; {user}worker_processes 1; pid {prefix}/pid; error_log stderr warn; events {{}}\n"
            f"http {{ sendfile on; access_log off; {places}\n"
            f"server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
        )
        server = subprocess.Popen([program, "-p", prefix, "-c", conf])
        try:
            wait_until(lambda: _answers(f"http://127.0.0.1:{port}/"), server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


def _answers(url: str) -> bool:
    try:
        requests.get(url, timeout=5)
    except requests.ConnectionError:
        return False
    return True


def memory_bytes(process: psutil.Process) -> int:
    """Return the proportional set size of a process and all its children."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def peak_mib(process: psutil.Process, action: Callable[[], object]) -> float:
    """Return the peak of a server's memory, in MiB, while `action` runs."""
    peak = memory_bytes(process)
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, memory_bytes(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        action()
    finally:
        done.set()
        watcher.join()
    return peak / 2**20


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a temporary folder on the disk of the checkout."""
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=Path(__file__).parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
