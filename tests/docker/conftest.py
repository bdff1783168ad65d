"""The images as they are in this checkout, and one composed project for all tests that leave it whole."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.composed import BONSEYES, SOURCE, Composed, archives


@pytest.fixture(scope="session")
def built() -> None:
    """`bonseyes build`."""
    done = subprocess.run([BONSEYES, "build", "--quiet"], cwd=SOURCE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def composed(built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """The project, up in Docker."""
    with Composed(tmp_path_factory.mktemp("composed") / "project") as project:
        project.up()
        yield project


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four archives of handwritten digits by parameter."""
    return archives(tmp_path_factory.mktemp("digits"))
