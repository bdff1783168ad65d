"""The state folder of a project, and the errors for a user who cannot write there."""

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
    """A project that root owns, in a folder that all users can enter."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        Path(folder).chmod(0o755)
        yield Project(Path(folder))


def _refusal(action: Callable[[], object]) -> str:
    try:
        return f"no error, but {action()!r}"
    except SettingsError as error:
        return error.message


def test_prepare_makes_folders_for_the_owner_only(project: Project) -> None:
    """Each start calls it again."""
    project.prepare()
    (project.logs / "gateway.log").touch()
    project.prepare()
    assert project.state_folder.stat().st_mode & 0o777 == 0o700


def test_error_names_a_file_at_the_path_of_the_state_folder(project: Project) -> None:
    """The user gets a sentence and no traceback."""
    project.state_folder.touch()
    assert f"cannot write {project.state_folder}: File exists" in _refusal(project.prepare)


@needs_root
def test_error_names_a_folder_without_write_access(project: Project) -> None:
    """The folder stays as it is. To read the state, no write access is needed."""
    answers = as_other_user(lambda: [_refusal(project.prepare), read_project_state(project)])
    assert f"cannot write {project.state_folder}: Permission denied. Copy the project" in answers[0]
    assert answers[1] is None
    assert not project.state_folder.exists()


@needs_root
def test_error_names_the_state_of_another_user(project: Project) -> None:
    """The project may be up; without access, the command must not report that it is down."""
    project.prepare()
    answers = as_other_user(lambda: [_refusal(project.prepare), _refusal(lambda: read_project_state(project))])
    assert "Permission denied" in answers[0]
    assert f"{project.state_folder} belongs to another user" in answers[1]


@needs_root
@pytest.mark.parametrize("name", ["volumes", "logs/gateway.log", "supervisor.lock"])
def test_error_names_a_file_of_root_in_the_state_folder(project: Project, name: str) -> None:
    """`sudo bonseyes up` leaves such files."""
    project.prepare()
    for file in (project.logs / "gateway.log", project.lock):
        file.touch(mode=0o600)
    for path in (project.state_folder, *project.state_folder.rglob("*")):
        if path != project.state_folder / name:
            shutil.chown(path, NOBODY)
    answers = as_other_user(lambda: _refusal(project.prepare))
    assert f"cannot write {project.state_folder / name}: Permission denied" in answers
