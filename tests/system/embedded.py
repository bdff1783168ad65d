"""Runs `bonseyes` in a project folder, like a user, for tests of an embedded project."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import requests

from bonseyes_dagster.embedded.leftovers import find_leftovers
from bonseyes_dagster.project.folder import Project
from tests.waiting import free_port

TINY = Path(__file__).parents[1] / "flow" / "tiny"
BONSEYES = Path(sys.executable).with_name("bonseyes")
TIMEOUT_S = 100.0


class Embedded:
    """A copy of the tiny project or of another project. Without Dagster, it has only the first tool of the tiny one."""

    def __init__(self, folder: Path, *, with_dagster: bool, source: Path = TINY) -> None:
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__", ".bonseyes"))
        if not with_dagster:
            (folder / "definitions.py").unlink()
            for name in ("learn", "judge"):
                shutil.rmtree(folder / "containers" / name)
        self.folder = folder
        self.project = Project(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def call(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `bonseyes` and wait for its end."""
        return subprocess.run(
            [BONSEYES, *arguments],
            cwd=self.folder,
            env=self.environ(**environ),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S + 60,
            check=False,
        )

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Start `bonseyes` and return immediately."""
        return subprocess.Popen(
            [BONSEYES, *arguments],
            cwd=self.folder,
            env=self.environ(**environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of a user who has set only the port, the URL and the folder of files."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BONSEYES_", "DAGSTER_"))}
        files = str(self.folder.parent)
        return {**kept, "BONSEYES_PORT": str(self.port), "BONSEYES_URL": self.url, "BONSEYES_FILES": files, **more}

    def up(self, **environ: str) -> None:
        """Run `bonseyes up --detach`. It must succeed."""
        done = self.call("up", "--detach", **environ)
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()

    def status(self) -> dict[str, Any]:
        """Return the output of `bonseyes status --json`."""
        return dict(json.loads(self.call("status", "--json").stdout))

    def service(self, name: str) -> dict[str, Any]:
        """Return the entry of a service in the project's state file."""
        state = json.loads(self.project.state_file.read_bytes())
        return next(service for service in state["services"] if service["name"] == name)

    def get(self, path: str, **options: Any) -> requests.Response:
        """Send a GET request to the gateway."""
        return requests.get(self.url + path, timeout=30, **options)

    def processes(self) -> list[psutil.Process]:
        """Return every process of the project, including the supervisor."""
        found = find_leftovers(self.project)
        with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
            found.append(psutil.Process(json.loads(self.project.state_file.read_bytes())["pid"]))
        return found

    def logs(self) -> str:
        """Return the end of every log, for the report of a failed test."""
        logs = sorted(self.project.logs.glob("*.log"))
        return "".join(f"\n== {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)

    def clean(self) -> None:
        """End all processes. A test may leave the project in any state."""
        self.call("down")
        assert self.processes() == []


@contextlib.contextmanager
def embedded(folder: Path, *, with_dagster: bool = False, source: Path = TINY) -> Iterator[Embedded]:
    """Yield a project. End all its processes after the block."""
    project = Embedded(folder, with_dagster=with_dagster, source=source)
    try:
        yield project
    finally:
        project.clean()
