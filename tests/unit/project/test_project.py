"""Where a project keeps its state, and what a user is told who cannot write there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.project.state import read_project_state
from tests.other_user import NOBODY, as_other_user, needs_root


@pytest.fixture
def project() -> Iterator[Project]:
    """A project of root's, in a folder that all users can enter."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        Path(folder).chmod(0o755)
        yield Project(Path(folder))


def _refusal(action: Callable[[], object]) -> str:
    try:
        return f"no error, but {action()!r}"
    except SettingsError as error:
        return error.message


def test_prepare_makes_folders_of_the_owner_alone(project: Project) -> None:
    """Twice, as at each start."""
    project.prepare()
    (project.logs / "gateway.log").touch()
    project.prepare()
    assert project.state_folder.stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_place_of_the_state_is_named(project: Project) -> None:
    """No traceback."""
    project.state_folder.touch()
    assert f"cannot write {project.state_folder}: File exists" in _refusal(project.prepare)


@needs_root
def test_a_folder_without_write_access_is_named(project: Project) -> None:
    """It stays as it is, and to ask what runs needs no write access."""
    said = as_other_user(lambda: [_refusal(project.prepare), read_project_state(project)])
    assert f"cannot write {project.state_folder}: Permission denied. Copy the project" in said[0]
    assert said[1] is None
    assert not project.state_folder.exists()


@needs_root
def test_state_of_another_user_is_named(project: Project) -> None:
    """That user's project may be up: this is not known, so nobody says that it is down."""
    project.prepare()
    said = as_other_user(lambda: [_refusal(project.prepare), _refusal(lambda: read_project_state(project))])
    assert "Permission denied" in said[0]
    assert f"{project.state_folder} belongs to another user" in said[1]


@needs_root
@pytest.mark.parametrize("name", ["volumes", "logs/gateway.log", "supervisor.lock"])
def test_what_root_left_in_the_state_is_named(project: Project, name: str) -> None:
    """As `sudo bonseyes up` leaves it."""
    project.prepare()
    for file in (project.logs / "gateway.log", project.lock):
        file.touch(mode=0o600)
    for path in (project.state_folder, *project.state_folder.rglob("*")):
        if path != project.state_folder / name:
            shutil.chown(path, NOBODY)
    said = as_other_user(lambda: _refusal(project.prepare))
    assert f"cannot write {project.state_folder / name}: Permission denied" in said
