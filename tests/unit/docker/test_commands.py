"""`bonseyes up --docker` when it fails, and during a backup."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from pathlib import Path

import pytest

from bonseyes_dagster.client.command import main
from bonseyes_dagster.docker.project import is_in_docker, is_up_in_docker
from bonseyes_dagster.docker.project_lock import lock_project
from bonseyes_dagster.errors import UnavailableError
from tests.unit.docker.fake_docker import FakeDocker, container
from tests.waiting import free_port

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """Put a fake `docker` command on the path, and a project of two services into the working folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(PROJECT / "docker-compose-build.yml", folder)
    for name in ("definitions.py", "docker-compose.yml"):
        (folder / name).touch()
    docker = FakeDocker(tmp_path)
    monkeypatch.setenv("PATH", docker.environ["PATH"])
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "x")
    monkeypatch.chdir(folder)
    port = {"host_ip": "127.0.0.1", "published": str(free_port())}
    services = {"prepare": {"image": "a"}, "gateway": {"image": "a", "ports": [port]}}
    docker.write("config", json.dumps({"services": services, "volumes": {}}))
    return docker


def _fail(docker: FakeDocker, folder: Path) -> None:
    """Make `docker compose up` fail, with one failed service, one waiting service and one starting service."""
    failed = container("x", folder, "prepare", Status="exited", ExitCode=1)
    others = [container("x", folder, "gateway", Status="created"), container("x", folder, "training", Health={})]
    docker.write("started", json.dumps([failed, *others]))
    docker.write("fails", "prepare didn't complete successfully: exit 1\n")


def test_failed_start_in_the_foreground_prints_the_logs_and_ends_the_project(
    docker: FakeDocker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The logs are gone when the containers are removed."""
    _fail(docker, tmp_path / "project")
    with pytest.raises(SystemExit) as ended:
        main(["up", "--docker"])
    error_output = capsys.readouterr().err
    assert ended.value.code == 5
    for sentence in ("didn't complete", "\nprepare-1  | the disk is full", "prepare: exited with code 1", "Stopping."):
        assert sentence in error_output
    assert "bonseyes logs" not in error_output
    logs, down = (next(call for call in docker.calls() if f" {word} " in call) for word in ("logs", "down"))
    assert logs.endswith(" prepare")
    assert docker.calls().index(logs) < docker.calls().index(down)


def test_logs_in_a_pipe_have_no_terminal_codes(
    docker: FakeDocker, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Compose writes terminal codes even into a pipe."""
    docker.write("containers", json.dumps([container("x", tmp_path / "project", "prepare")]))
    with pytest.raises(SystemExit) as ended:
        main(["logs", "prepare"])
    assert (ended.value.code, capfdbinary.readouterr().out) == (0, b"prepare-1  | the disk is full\n")


def test_failed_start_in_the_background_leaves_the_project_running(
    docker: FakeDocker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the command that shows the logs."""
    _fail(docker, tmp_path / "project")
    with pytest.raises(SystemExit) as ended:
        main(["up", "--docker", "--detach"])
    assert ended.value.code == 5
    assert "`bonseyes logs SERVICE` shows why" in capsys.readouterr().err
    assert not [call for call in docker.calls() if " down " in call or " logs " in call]


def test_project_does_not_start_during_a_backup(
    docker: FakeDocker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It must not end anything, either: the backup may be using the database."""
    with lock_project(tmp_path / "project", exclusive=True), pytest.raises(SystemExit) as ended:
        main(["up", "--docker"])
    assert ended.value.code == 5
    assert "is being backed up or restored" in capsys.readouterr().err
    assert not [call for call in docker.calls() if " up " in call or " down " in call]


def test_project_lock_is_shared_by_starts_and_exclusive_for_backups(tmp_path: Path) -> None:
    """The lock is free again at the end of each block."""
    for first, second in ((False, True), (True, False), (True, True)):
        with (
            lock_project(tmp_path, exclusive=first),
            pytest.raises(UnavailableError, match="try again"),
            lock_project(tmp_path, exclusive=second),
        ):
            pass
    with lock_project(tmp_path, exclusive=False), lock_project(tmp_path, exclusive=False):
        pass


def test_project_lock_has_no_effect_where_folders_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS, for example, cannot lock folders."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_project(tmp_path, exclusive=True), lock_project(tmp_path, exclusive=False):
        pass


def test_project_behind_a_symbolic_link_is_found(docker: FakeDocker, tmp_path: Path) -> None:
    """Compose stores the path of the shell, which may lead through a link."""
    (tmp_path / "link").symlink_to(tmp_path / "project")
    docker.write("containers", json.dumps([container("x", tmp_path / "link", "gateway")]))
    for folder in (tmp_path / "project", tmp_path / "link"):
        assert is_up_in_docker(folder)
    docker.write("containers", json.dumps([container("x", tmp_path / "other", "gateway")]))
    assert not is_in_docker(tmp_path / "project")
