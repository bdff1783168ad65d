"""What `bonseyes up --docker` says and leaves when it fails, and how it keeps out of a backup's way."""

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
    """Put a command that stands for Docker's on the path, and a project of two services into the working folder."""
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
    """Have `docker compose up` fail while one service has failed, one has not begun and one is starting."""
    failed = container("x", folder, "prepare", Status="exited", ExitCode=1)
    others = [container("x", folder, "gateway", Status="created"), container("x", folder, "training", Health={})]
    docker.write("started", json.dumps([failed, *others]))
    docker.write("fails", "prepare didn't complete successfully: exit 1\n")


def test_what_fails_in_the_foreground_is_told_before_it_goes(
    docker: FakeDocker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its logs go with it."""
    _fail(docker, tmp_path / "project")
    with pytest.raises(SystemExit) as ended:
        main(["up", "--docker"])
    said = capsys.readouterr().err
    assert ended.value.code == 5
    for sentence in ("didn't complete", "\nprepare-1  | the disk is full", "prepare: exited with code 1", "Stopping."):
        assert sentence in said
    assert "bonseyes logs" not in said
    logs, down = (next(call for call in docker.calls() if f" {word} " in call) for word in ("logs", "down"))
    assert logs.endswith(" prepare")
    assert docker.calls().index(logs) < docker.calls().index(down)


def test_logs_in_a_pipe_have_no_codes_for_terminals(
    docker: FakeDocker, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Compose writes them all the same."""
    docker.write("containers", json.dumps([container("x", tmp_path / "project", "prepare")]))
    with pytest.raises(SystemExit) as ended:
        main(["logs", "prepare"])
    assert (ended.value.code, capfdbinary.readouterr().out) == (0, b"prepare-1  | the disk is full\n")


def test_what_fails_in_the_background_stays(
    docker: FakeDocker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said where to look."""
    _fail(docker, tmp_path / "project")
    with pytest.raises(SystemExit) as ended:
        main(["up", "--docker", "--detach"])
    assert ended.value.code == 5
    assert "`bonseyes logs SERVICE` tells more" in capsys.readouterr().err
    assert not [call for call in docker.calls() if " down " in call or " logs " in call]


def test_nothing_starts_while_it_is_backed_up(
    docker: FakeDocker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is ended, either: the database may be at work."""
    with lock_project(tmp_path / "project", alone=True), pytest.raises(SystemExit) as ended:
        main(["up", "--docker"])
    assert ended.value.code == 5
    assert "is being backed up or restored" in capsys.readouterr().err
    assert not [call for call in docker.calls() if " up " in call or " down " in call]


def test_turns(tmp_path: Path) -> None:
    """Several may start it, one alone may have it to itself; afterwards it is free."""
    for first, second in ((False, True), (True, False), (True, True)):
        with (
            lock_project(tmp_path, alone=first),
            pytest.raises(UnavailableError, match="try again"),
            lock_project(tmp_path, alone=second),
        ):
            pass
    with lock_project(tmp_path, alone=False), lock_project(tmp_path, alone=False):
        pass


def test_where_folders_cannot_be_locked_nobody_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_project(tmp_path, alone=True), lock_project(tmp_path, alone=False):
        pass


def test_a_project_is_known_by_whatever_way_one_came(docker: FakeDocker, tmp_path: Path) -> None:
    """Compose writes down the way that the shell took, through a link."""
    (tmp_path / "link").symlink_to(tmp_path / "project")
    docker.write("containers", json.dumps([container("x", tmp_path / "link", "gateway")]))
    for folder in (tmp_path / "project", tmp_path / "link"):
        assert is_up_in_docker(folder)
    docker.write("containers", json.dumps([container("x", tmp_path / "other", "gateway")]))
    assert not is_in_docker(tmp_path / "project")
