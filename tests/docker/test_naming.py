"""Two checkouts in folders of one name, on a real engine: neither uses the other's containers or volumes."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bonseyes_dagster.commands.backup import _only_kind
from bonseyes_dagster.docker.engine import docker
from bonseyes_dagster.docker.naming import DefaultName
from bonseyes_dagster.docker.project import DockerProject, is_up_in_docker
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.project.folder import Project

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]
IMAGE = "python:3.11-slim-bookworm"
COMPOSE = {
    "services": {
        "keeper": {
            "image": IMAGE,
            "init": True,
            "command": ["sleep", "300"],
            "environment": {"CALLED": "${COMPOSE_PROJECT_NAME:-}"},
            "volumes": ["data:/data"],
        }
    },
    "volumes": {"data": None},
}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """Two folders of one name; at the end, nothing of them is left on the engine."""
    if not docker("image", "ls", "--quiet", IMAGE).strip():
        pytest.skip(f"there is no {IMAGE}")
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    name = f"twins{uuid.uuid4().hex[:8]}"
    here, there = tmp_path / "here" / name, tmp_path / "there" / name
    for folder in (here, there):
        folder.mkdir(parents=True)
        (folder / "definitions.py").touch()
        (folder / "docker-compose.yml").write_text(json.dumps(COMPOSE))
    yield here, there
    for project in (name, DefaultName(here).own, DefaultName(there).own):
        compose(here, "--project-name", project, "down", "--volumes", "--timeout=0")


def compose(folder: Path, *arguments: str) -> None:
    """Say something to Compose, as a person would in `folder`."""
    argv = ["docker", "compose", "--ansi=never", "--progress=quiet", *arguments]
    subprocess.run(argv, cwd=folder, env={**os.environ, "PWD": str(folder)}, check=True, capture_output=True)


def bring_up(folder: Path) -> DockerProject:
    """Bring a project up by its name."""
    project = DockerProject(folder)
    project.compose("up", "--detach")
    return project


def test_projects_in_two_folders_of_one_name_run_side_by_side(folders: tuple[Path, Path]) -> None:
    """Each has its own containers and volumes, and stops only these."""
    first, second = map(bring_up, folders)
    assert first.name != second.name
    for project in (first, second):
        assert [each.folder for each in project.containers()] == [project.folder]
        assert f"CALLED={project.name}" in project.containers()[0].raw["Config"]["Env"]
    first.stop(with_volumes=True, at_once=True)
    assert not is_up_in_docker(folders[0])
    assert is_up_in_docker(folders[1])
    assert docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={second.name}").strip()


def test_project_of_plain_compose_belongs_to_its_folder_only(folders: tuple[Path, Path]) -> None:
    """When it is down, the other folder does not use its volumes, but can still be backed up."""
    here, there = folders
    compose(there, "up", "--detach")
    (here / ".bonseyes/volumes/tool").mkdir(parents=True)
    assert DockerProject(there).name == there.name
    assert is_up_in_docker(there)
    assert not is_up_in_docker(here)
    DockerProject(here).check_name()
    assert _only_kind(Project(here)) == "embedded"
    assert _only_kind(Project(there)) == "docker"
    compose(there, "down", "--timeout=0")
    for folder in folders:
        with pytest.raises(SettingsError, match=f"set COMPOSE_PROJECT_NAME={there.name}"):
            DockerProject(folder).check_name()
    assert _only_kind(Project(here)) == "embedded"
    (there / ".env").write_text(f"COMPOSE_PROJECT_NAME={there.name}\n")
    assert DockerProject(there).name == there.name
    assert _only_kind(Project(there)) == "docker"
