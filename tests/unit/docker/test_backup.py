"""The backup of a docker project: nothing of it may change meanwhile, and what others have started is theirs."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from bonseyes_dagster.docker import backup as docker_backup
from bonseyes_dagster.docker.project import DockerProject
from bonseyes_dagster.docker.project_lock import lock_project
from bonseyes_dagster.errors import InvalidError, UnavailableError
from bonseyes_dagster.project.backup import BackupManifest
from tests.unit.docker.fake_docker import FakeDocker, container

SERVICES = {
    "postgres": {
        "image": "postgres:15",
        "environment": {"POSTGRES_USER": "dagster", "POSTGRES_DB": "dagster"},
        "volumes": [{"type": "volume", "source": "postgres", "target": "/data"}],
        "depends_on": {"secrets": {}},
    }
}


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """Put a command that stands for Docker's on the path, for a project with a database."""
    docker = FakeDocker(tmp_path)
    monkeypatch.setenv("PATH", docker.environ["PATH"])
    docker.write("config", json.dumps({"services": SERVICES, "volumes": {"postgres": {"name": "x_postgres"}}}))
    return docker


@pytest.fixture
def project(docker: FakeDocker, tmp_path: Path) -> DockerProject:
    """The project."""
    (tmp_path / "docker-compose-build.yml").write_text('{"services": {"a": {"image": "me/a", "build": "."}}}')
    return DockerProject(tmp_path, {**docker.environ, "COMPOSE_PROJECT_NAME": "x"})


@pytest.mark.parametrize(("others", "is_ended"), [((), True), (("training",), False)])
def test_the_database_ends_unless_others_use_it(
    docker: FakeDocker, project: DockerProject, others: tuple[str, ...], is_ended: bool
) -> None:
    """Somebody may have said `docker compose up` meanwhile."""
    names = ("postgres", "secrets", *others)
    docker.write("started", json.dumps([container("x", project.folder, name) for name in names]))
    with docker_backup._database(project) as ask:
        assert ask("pg_dump")[-3:] == ["pg_dump", "--username=dagster", "--dbname=dagster"]
    assert any(" down " in call for call in docker.calls()) == is_ended


def test_a_backup_waits_for_nobody(project: DockerProject) -> None:
    """While the project is being started there is none, and while there is one nothing starts."""
    with (
        lock_project(project.folder, alone=False),
        pytest.raises(UnavailableError, match="being started"),
        docker_backup.keep_down(project),
    ):
        pass
    with (
        docker_backup.keep_down(project),
        pytest.raises(UnavailableError, match="backed up"),
        lock_project(project.folder, alone=False),
    ):
        pass


def test_the_version_of_the_database_is_its_own(project: DockerProject) -> None:
    """Not what its image is called."""
    assert docker_backup.versions(project)["postgres"] == "15.4"


@pytest.mark.parametrize(("version", "is_refused"), [("16.1", True), ("15.9", False), ("9.6", False), ("", False)])
def test_a_dump_of_a_newer_database_is_refused(
    docker: FakeDocker, project: DockerProject, version: str, is_refused: bool
) -> None:
    """Before anything is removed."""
    manifest = BackupManifest(project="x", kind="docker", created="", versions={"postgres": version}, parts=())
    if is_refused:
        with pytest.raises(InvalidError, match=r"Postgres 16.1 made the dump .* Postgres 15.4, which is to read it"):
            docker_backup.restore(project, project.folder, manifest, lambda part, total: nullcontext(id), force=True)
        assert not [call for call in docker.calls() if " down " in call]
    else:
        docker_backup._check(project, manifest, {}, force=True)
