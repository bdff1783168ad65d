"""Starts a whole project with `bonseyes up` and ends it with `bonseyes down`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from benchmarks.service import free_port
from bonseyes_dagster.client import Container, Project

BONSEYES = Path(sys.executable).with_name("bonseyes")


class RunningProject:
    """The project in a folder, at a free port. A context manager. All its services get `environ`."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._environ = os.environ | environ | {"BONSEYES_PORT": str(port), "BONSEYES_URL": self.url}

    def __enter__(self) -> Self:
        try:
            self.call("up", "--detach")
        except BaseException:
            self.call("down")
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call("down")

    def call(self, *words: str | Path) -> str:
        """Run a `bonseyes` command in the folder and return its output. Raise RuntimeError if it fails."""
        command = [BONSEYES, *words]
        done = subprocess.run(command, cwd=self.folder, env=self._environ, capture_output=True, text=True)
        if done.returncode:
            output = done.stderr or done.stdout
            raise RuntimeError(f"bonseyes {' '.join(map(str, words))} ended with status {done.returncode}: {output}")
        return done.stdout

    def container(self, pipeline: str) -> Container:
        """Return a pipeline's container. Its requests go through the gateway."""
        return Project(self.url).container(pipeline, "runs")

    def process(self, service: str) -> psutil.Process:
        """Return a service's main process."""
        record = json.loads((self.folder / ".bonseyes/supervisor.json").read_bytes())
        return psutil.Process(next(entry["pid"] for entry in record["services"] if entry["name"] == service))
