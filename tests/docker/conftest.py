"""The images of this checkout, and one docker project that many tests share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.running_project import BONSEYES, SOURCE, RunningProject, archives


@pytest.fixture(scope="session")
def built() -> None:
    """`bonseyes build`."""
    done = subprocess.run([BONSEYES, "build", "--quiet"], cwd=SOURCE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def docker_project(built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProject]:
    """The shared project, up in Docker."""
    with RunningProject(tmp_path_factory.mktemp("docker") / "project") as project:
        project.up()
        yield project


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four archives of handwritten digits by parameter."""
    return archives(tmp_path_factory.mktemp("digits"))
