"""A docker project for tests, used through the commands `bonseyes` and `docker`, as a person would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from itertools import chain
from pathlib import Path
from typing import Any, Self

import pytest

from bonseyes_dagster.client import Project
from bonseyes_dagster.docker.engine import EngineRefusedCommandError, docker
from tests.waiting import free_port

SOURCE = Path(__file__).parents[2]
BONSEYES = Path(sys.executable).with_name("bonseyes")
TOOLS = ("import", "processing", "export", "training-set", "training", "benchmarking")
PIPELINES = ("digits-cnn", "digits-mlp")
DAGSTER = ("dagster-webserver", "dagster-daemon", "code-server", "run-server")
SERVICES = (*TOOLS, *PIPELINES, *DAGSTER, "gateway", "access", "dashboard", "visualization", "postgres")
TIMEOUT_S = 400.0


# The files that images are built from, and the compose files.
FOLDERS = ("bonseyes_dagster", "components", "containers", "requirements")
FILES = ("*Dockerfile", "docker-compose*.yml", ".dockerignore", "*.py", "*.toml", "*.txt", "*.yaml")


class RunningProject:
    """A copy of the project with its own name and port. At the end of its block, nothing of it is left on the engine.

    `environ` are variables that a person has set, beside the name and the port.
    """

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        folder.mkdir()
        for name in FOLDERS:
            shutil.copytree(SOURCE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in chain.from_iterable(map(SOURCE.glob, FILES)):
            shutil.copy(file, folder)
        self._environ = environ
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = Project(self.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.clean()

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of a person's shell."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BONSEYES_", "COMPOSE_"))}
        own = {"COMPOSE_PROJECT_NAME": self.name, "BONSEYES_PORT": str(self.port), "BONSEYES_URL": self.url}
        return {**kept, **own, **self._environ, **more}

    def call(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `bonseyes` in the folder."""
        return self._run([BONSEYES, *arguments], environ)

    def compose(self, *arguments: str) -> str:
        """Run `docker compose`, which must succeed, and return its output."""
        done = self._run(["docker", "compose", "--ansi", "never", "--progress", "quiet", *arguments], {})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _run(self, argv: list[Any], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            cwd=self.folder,
            env=self.environ(**environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def up(self) -> None:
        """Run `bonseyes up --docker --detach`, which must succeed."""
        done = self.call("up", "--docker", "--detach")
        assert done.returncode == 0, done.stdout + done.stderr + self.call("logs", "-n", "10").stdout

    def container(self, service: str) -> str:
        """Return the name of a service's container."""
        return f"{self.name}-{service}-1"

    def inspect(self, service: str) -> dict[str, Any]:
        """Return the engine's description of a service's container."""
        found: list[dict[str, Any]] = json.loads(docker("inspect", self.container(service)))
        return found[0]

    def inside(self, service: str, *command: str) -> str:
        """Run a command in a service's container, which must succeed, and return its output."""
        return docker("exec", self.container(service), *command, timeout_s=TIMEOUT_S)

    def runs(self, pipeline: str = "digits-cnn") -> Any:
        """Return a pipeline's container."""
        return self.client.container(pipeline, "runs")

    def made(self) -> dict[tuple[str, str], Any]:
        """Return digest, time of the end, files and log of each completed artifact, by tool and name."""
        found = {}
        for tool in map(self.client.container, TOOLS):
            for status in tool.statuses():
                if status.phase == "completed":
                    artifact = tool.artifact(status.name)
                    log = b"".join(artifact.iter_log())
                    found[tool.name, status.name] = (status.digest, status.finished, artifact.manifest(), log)
        return found

    def clean(self) -> None:
        """Remove everything; only a network that the engine refuses to remove may be left."""
        done = self.call("down", "--volumes", "--yes")
        label = f"--filter=label=com.docker.compose.project={self.name}"
        left = docker("ps", "-aq", label) + docker("volume", "ls", "-q", label)
        assert not left, left + done.stderr
        for network in docker("network", "ls", "-q", label).split():
            # An engine under load may miscount the containers of a network: https://github.com/moby/moby/issues/42119
            assert docker("network", "inspect", "-f", "{{len .Containers}}", network).strip() == "0", done.stderr
            with pytest.raises(EngineRefusedCommandError, match="has active endpoints"):
                docker("network", "rm", network)


def archives(folder: Path) -> dict[str, Path]:
    """Return the archives of scikit-learn's digits, by the pipelines' parameters."""
    subprocess.run([sys.executable, SOURCE / "demo" / "digits.py", folder], check=True, capture_output=True)
    parts = [(part, kind) for part in ("train", "test") for kind in ("images", "labels")]
    return {f"{part}-{kind}": next(folder.glob(f"{part}-{kind}-*.gz")) for part, kind in parts}
