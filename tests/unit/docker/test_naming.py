"""A Compose project belongs to one folder: another folder of the same name has another project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bonseyes_dagster.client.command import main
from bonseyes_dagster.commands.backup import _only_kind
from bonseyes_dagster.docker.naming import DefaultName, project_name
from bonseyes_dagster.docker.project import DockerProject, is_in_docker
from bonseyes_dagster.errors import InvalidError, SettingsError, UnavailableError
from bonseyes_dagster.project.folder import Project
from tests.unit.docker.fake_docker import FakeDocker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project's folder, and elsewhere another folder of the same name."""
    folder = tmp_path / "here/My Project_2.0"
    folder.mkdir(parents=True)
    (tmp_path / "there/My Project_2.0").mkdir(parents=True)
    (folder / "definitions.py").touch()
    (folder / "docker-compose.yml").write_text("services: {}")
    return folder


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """Put a fake `docker` command on the path, and set no COMPOSE_PROJECT_NAME."""
    docker = FakeDocker(tmp_path)
    monkeypatch.setenv("PATH", docker.environ["PATH"])
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    docker.write("config", '{"services": {}, "volumes": {"data": {"name": "myproject_20_data"}}}')
    return docker


def there(folder: Path) -> Path:
    """Return the other folder."""
    return folder.parents[1] / "there" / folder.name


def leave_state(folder: Path) -> None:
    """Leave the state of an embedded project."""
    (folder / ".bonseyes/volumes/tool").mkdir(parents=True)


@pytest.mark.usefixtures("docker")
def test_two_folders_of_one_name_have_two_project_names(folder: Path, tmp_path: Path) -> None:
    """A folder has one name, also behind a link."""
    own = project_name(folder, {})
    assert own.startswith("myproject_20-")
    assert own != project_name(there(folder), {})
    (tmp_path / "link").symlink_to(folder)
    assert project_name(tmp_path / "link", {}) == own
    nameless = tmp_path / "…"
    nameless.mkdir()
    assert project_name(nameless, {}).startswith("project-")


def test_chosen_project_name_is_used(folder: Path) -> None:
    """It comes from the environment or `.env`, without a call of Docker."""
    (folder / ".env").write_text("A=1\nCOMPOSE_PROJECT_NAME='other'\n")
    assert project_name(folder, {}) == "other"
    assert project_name(folder, {"COMPOSE_PROJECT_NAME": "third"}) == "third"


def test_project_with_the_plain_folder_name_is_found(docker: FakeDocker, folder: Path) -> None:
    """`docker compose up` uses this name, and earlier versions did, too."""
    docker.write("folders", f"myproject_20\t{folder}\nmyproject_20\t\nother\t{there(folder)}\n")
    docker.write("projects", "myproject_20\n")
    project = DockerProject(folder)
    assert project.name == "myproject_20"
    project.check_name()
    assert project_name(there(folder), {}) != "myproject_20"


def test_volumes_of_an_unknown_folder_need_a_chosen_name(docker: FakeDocker, folder: Path) -> None:
    """Only the user knows to which folder the volumes belong."""
    docker.write("projects", "myproject_20\nother\n")
    own = DefaultName(folder).own
    with pytest.raises(SettingsError, match=rf"set COMPOSE_PROJECT_NAME=myproject_20; .*COMPOSE_PROJECT_NAME={own}"):
        DockerProject(folder).check_name()
    DockerProject(folder, {"PATH": docker.environ["PATH"], "COMPOSE_PROJECT_NAME": "myproject_20"}).check_name()
    docker.write("projects", f"myproject_20\n{own}\n")
    DockerProject(folder).check_name()
    docker.write("projects", "myproject_20\n")
    docker.write("folders", f"myproject_20\t{there(folder)}\n")
    DockerProject(folder).check_name()
    assert DockerProject(folder).name == own


@pytest.mark.parametrize("command", [["up", "--docker"], ["down", "--volumes", "--yes"], ["backup", "../b"]])
def test_command_refuses_volumes_of_an_unknown_folder(
    docker: FakeDocker,
    folder: Path,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command must change nothing before the user has chosen."""
    docker.write("projects", "myproject_20\n")
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code not in (0, None)
    assert "does not know to which folder they belong" in capsys.readouterr().err
    assert not [call for call in docker.calls() if " up " in call or " down " in call]


def test_embedded_project_is_backed_up_beside_a_docker_project_of_its_name(docker: FakeDocker, folder: Path) -> None:
    """The volumes of another folder of the same name do not count."""
    leave_state(folder)
    docker.write("volumes", "myproject_20_data\n")
    own = DefaultName(folder).own
    docker.write("config", f'{{"services": {{}}, "volumes": {{"data": {{"name": "{own}_data"}}}}}}')
    for folders in ("", f"myproject_20\t{there(folder)}\n"):
        docker.write("folders", folders)
        docker.write("projects", "myproject_20\n")
        assert _only_kind(Project(folder)) == "embedded"
    docker.write("volumes", f"{own}_data\n")
    docker.write("projects", f"{own}\n")
    with pytest.raises(InvalidError, match="both embedded and in Docker"):
        _only_kind(Project(folder))
    shutil.rmtree(folder / ".bonseyes")
    assert _only_kind(Project(folder)) == "docker"


def test_former_names_of_a_moved_folder_are_found(docker: FakeDocker, folder: Path) -> None:
    """They are only suggestions: the volumes may belong to another folder whose project is down."""
    docker.write("projects", "myproject_20-0123abcd\nmyproject_20-x\nother-0123abcd\n")
    assert DockerProject(folder).former_names() == ["myproject_20-0123abcd"]
    docker.write("folders", f"myproject_20-0123abcd\t{there(folder)}\n")
    assert DockerProject(folder).former_names() == []


def test_project_is_not_in_docker_without_an_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An embedded project needs no Docker."""
    command = tmp_path / "docker"
    command.write_text("#!/bin/sh\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    assert not is_in_docker(folder)
    assert _only_kind(Project(folder)) == "embedded"
    with pytest.raises(UnavailableError):
        project_name(folder, {})
