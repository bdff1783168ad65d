"""The project in Docker is backed up in the middle of a run and restored as another, which goes on with all of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bonseyes_dagster.client import Artifact, Project
from bonseyes_dagster.deployment.engine import docker
from bonseyes_dagster.deployment.project import ComposedProject
from tests.docker import composed
from tests.docker.composed import BONSEYES, SOURCE, TOOLS
from tests.system.embedded import eventually
from tests.system.project import free_port

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


class Copy:
    """A copy of the project with a name and a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("containers", "components"):
            shutil.copytree(SOURCE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in (SOURCE / "definitions.py", *SOURCE.glob("*Dockerfile"), *SOURCE.glob("docker-compose*.yml")):
            shutil.copy(file, folder)
        self.name = f"backup-{uuid.uuid4().hex[:8]}"
        port = str(free_port())
        self.url = f"http://127.0.0.1:{port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BONSEYES_", "COMPOSE_"))}
        own = {"COMPOSE_PROJECT_NAME": self.name, "BONSEYES_PORT": port, "BONSEYES_URL": self.url}
        self.environ = {**kept, **own}
        self.composed = ComposedProject(folder, self.environ)
        self.client = Project(self.url)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `bonseyes` in the folder."""
        return subprocess.run(
            [BONSEYES, *arguments], cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False
        )

    def up(self) -> None:
        """Start it, which must succeed."""
        last: list[Any] = []
        assert self.composed.start(last.append) is not None, last[-1]

    def down(self) -> None:
        """Stop it as `bonseyes down` does."""
        self.composed.stop()

    def made(self, runs: tuple[str, ...]) -> dict[tuple[str, str], Any]:
        """Return digest, files and log of each artifact of these runs that is complete."""
        found = {}
        for tool in TOOLS:
            for status in self.client.container(tool).statuses():
                if status.phase == "completed" and status.name.startswith(runs):
                    artifact = self.client.container(tool).artifact(status.name)
                    log = b"".join(artifact.iter_log())
                    found[tool, status.name] = (status.digest, status.finished, artifact.manifest(), log)
        return found


@contextmanager
def copy(folder: Path) -> Iterator[Copy]:
    """Yield a copy of the project; nothing of it is left on the engine."""
    made = Copy(folder)
    try:
        yield made
    finally:
        subprocess.run(
            ["docker", "compose", "down", "--volumes", "--remove-orphans"],
            cwd=folder,
            env=made.environ,
            capture_output=True,
            check=True,
        )
        assert made.name not in docker("volume", "ls", "--format", "{{.Name}}") + docker("network", "ls")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scikit-learn's digits."""
    return composed.archives(tmp_path_factory.mktemp("digits"))


def _is_training(run: Artifact) -> bool:
    return any(step.name == "train" and step.phase == "running" for step in run.status().steps or ())


def test_a_project_goes_on_as_another(tmp_path: Path, archives: dict[str, Path]) -> None:
    """Volumes and database, into fresh ones: finished runs are intact, the run under way and the queue go on."""
    saved = tmp_path / "saved"
    with copy(tmp_path / "old") as old:
        old.up()
        first = old.client.container("digits-mlp", "runs").create("first", {"epochs": 2}, archives)
        assert first.wait(120).phase == "completed"
        second = old.client.container("digits-cnn", "runs").create("second", {"epochs": 40}, archives)
        eventually(lambda: _is_training(second))
        parameters = {"training-set": "training-set/first_split", "epochs": 1}
        waiting = old.client.container("training").create("waiting", parameters)
        assert waiting.status().phase == "queued"
        provenance = first.read("run.json")
        made = old.made(("first", "second"))
        assert len(made) >= 9 + 6
        refused = old.call("backup", str(saved))
        assert (refused.returncode, saved.exists()) == (2, False), refused.stderr
        old.down()
        done = old.call("backup", str(saved))
        assert done.returncode == 0, done.stderr
    _holds_no_secret(saved)
    with copy(tmp_path / "new") as new:
        done = new.call("restore", str(saved))
        assert done.returncode == 0, done.stderr
        assert new.call("restore", str(saved)).returncode == 4
        new.up()
        runs = new.client.container("digits-mlp", "runs")
        assert runs.artifact("first").status().phase == "completed"
        assert runs.artifact("first").read("run.json") == provenance
        status = new.client.container("digits-cnn", "runs").artifact("second").wait(300)
        assert status.phase == "completed", status
        assert new.client.container("training").artifact("waiting").wait(120).phase == "completed"
        now = new.made(("first", "second"))
        assert {key: now[key] for key in made} == made


def _holds_no_secret(saved: Path) -> None:
    """The database's password stays where it was made."""
    parts = {part["file"] for part in json.loads((saved / "manifest.json").read_bytes())["parts"]}
    assert parts == {f"volumes/{name}.tar" for name in (*TOOLS, "dashboard", "dagster-home")} | {"postgres.dump"}
    with tarfile.open(saved / "volumes" / "dagster-home.tar") as archive:
        assert "./dagster.yaml" not in archive.getnames()
        assert "./workspace.yaml" in archive.getnames()
