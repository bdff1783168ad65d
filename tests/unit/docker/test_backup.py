"""The backup of a docker project: its data must not change meanwhile, and containers of others must not end."""

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
    """Put a fake `docker` command on the path, for a project with a database."""
    docker = FakeDocker(tmp_path)
    monkeypatch.setenv("PATH", docker.environ["PATH"])
    docker.write("config", json.dumps({"services": SERVICES, "volumes": {"postgres": {"name": "x_postgres"}}}))
    return docker


@pytest.fixture
def project(docker: FakeDocker, tmp_path: Path) -> DockerProject:
    """The docker project."""
    (tmp_path / "docker-compose-build.yml").write_text('{"services": {"a": {"image": "me/a", "build": "."}}}')
    return DockerProject(tmp_path, {**docker.environ, "COMPOSE_PROJECT_NAME": "x"})


@pytest.mark.parametrize(("others", "is_ended"), [((), True), (("training",), False)])
def test_database_ends_unless_the_project_is_started_meanwhile(
    docker: FakeDocker, project: DockerProject, others: tuple[str, ...], is_ended: bool
) -> None:
    """Somebody may run `docker compose up` during a backup."""
    names = ("postgres", "secrets", *others)
    docker.write("started", json.dumps([container("x", project.folder, name) for name in names]))
    with docker_backup._database(project) as argv_of:
        assert argv_of("pg_dump")[-3:] == ["pg_dump", "--username=dagster", "--dbname=dagster"]
    assert any(" down " in call for call in docker.calls()) == is_ended


def test_backup_and_start_exclude_each_other(project: DockerProject) -> None:
    """Each of the two fails at once while the other is running."""
    with (
        lock_project(project.folder, exclusive=False),
        pytest.raises(UnavailableError, match="being started"),
        docker_backup.keep_down(project),
    ):
        pass
    with (
        docker_backup.keep_down(project),
        pytest.raises(UnavailableError, match="backed up"),
        lock_project(project.folder, exclusive=False),
    ):
        pass


def test_version_is_that_of_postgres_not_of_its_image(project: DockerProject) -> None:
    """The tag of an image may name any version."""
    assert docker_backup.versions(project)["postgres"] == "15.4"


@pytest.mark.parametrize(("version", "is_refused"), [("16.1", True), ("15.9", False), ("9.6", False), ("", False)])
def test_dump_of_a_newer_database_is_refused(
    docker: FakeDocker, project: DockerProject, version: str, is_refused: bool
) -> None:
    """The check comes before anything is removed."""
    manifest = BackupManifest(project="x", kind="docker", created="", versions={"postgres": version}, parts=())
    if is_refused:
        with pytest.raises(
            InvalidError, match=r"Postgres 16.1 made the dump .* Postgres 15.4 of this project is older"
        ):
            docker_backup.restore(project, project.folder, manifest, lambda part, total: nullcontext(id), force=True)
        assert not [call for call in docker.calls() if " down " in call]
    else:
        docker_backup._check(project, manifest, {}, force=True)
