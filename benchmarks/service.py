"""Real servers for the measurements, each in a folder of its own, ended with their whole process tree."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bonseyes_dagster.client import Container

TOOLS = Path(__file__).parent / "tools"


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_healthy(container: Container, process: subprocess.Popen[bytes], timeout_s: float = 30) -> None:
    """Return when the container answers; raise when its process ended or the time is up."""
    deadline = time.monotonic() + timeout_s
    while not container.is_healthy():
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not become healthy")
        time.sleep(0.02)


@contextmanager
def tool_container(name: str, volume: Path, **settings: str) -> Iterator[tuple[Container, psutil.Process]]:
    """Serve the tool in `benchmarks/tools/NAME` from `volume` with real uWSGI processes."""
    port = free_port()
    environ = os.environ | {"BONSEYES_TOOL": str(TOOLS / name), "BONSEYES_VOLUME": str(volume)} | settings
    command = [sys.executable, "-m", "bonseyes_dagster.tool", "--bind", f"127.0.0.1:{port}"]
    with (volume.parent / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        try:
            container = Container(f"http://127.0.0.1:{port}", name=name)
            wait_until_healthy(container, process)
            yield container, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(20)


def memory_bytes(process: psutil.Process) -> int:
    """Return the proportional memory of a process and all below it."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder on the disk that the checkout is on, and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=Path(__file__).parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
