"""Which compose files a project in Docker is started with, and that nothing which is asked for is passed over."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bonseyes_dagster.client.command import main
from bonseyes_dagster.docker.compose.files import read_compose_model
from bonseyes_dagster.docker.profiles import Profiles
from bonseyes_dagster.docker.project import DockerProject
from bonseyes_dagster.errors import SettingsError
from tests.unit.docker.fake_docker import FakeDocker

PROJECT = Path(__file__).parents[3]
BASE, GPU, RUNS = (f"docker-compose{name}.yml" for name in ("", ".gpu", ".run-containers"))
LAUNCHER = "BONSEYES_RUN_LAUNCHER"


def has_compose() -> bool:
    """Tell whether Docker's command has the Compose plugin."""
    try:
        return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
    except OSError:
        return False


needs_compose = pytest.mark.skipif(not has_compose(), reason="there is no Docker Compose")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with this project's compose files, and one more that Compose reads by itself."""
    folder = tmp_path / "project"
    folder.mkdir()
    for file in (BASE, GPU, RUNS):
        shutil.copy(PROJECT / file, folder)
    return folder


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """Put a command that stands for Docker's on the path."""
    docker = FakeDocker(tmp_path)
    monkeypatch.setenv("PATH", docker.environ["PATH"])
    return docker


@pytest.mark.parametrize(
    ("variables", "named", "files", "own"),
    [
        ({}, (), [], []),
        ({}, ("gpu",), [BASE, GPU], []),
        ({"COMPOSE_PROFILES": "gpu, extra,gpu"}, (), [BASE, GPU], ["extra"]),
        ({"COMPOSE_PROFILES": "gpu"}, ("run-containers",), [BASE, RUNS, GPU], []),
        ({LAUNCHER: "docker"}, (), [BASE, RUNS], []),
        ({LAUNCHER: "warm"}, (), [], []),
        ({"COMPOSE_FILE": f"{BASE}:{GPU}"}, ("gpu",), [], []),
        ({"BONSEYES_GPUS": "2"}, (), [], []),
    ],
)
def test_a_profile_is_a_file_or_composes_own(
    folder: Path, variables: dict[str, str], named: tuple[str, ...], files: list[str], own: list[str]
) -> None:
    """Files are named only where Compose would not find them by itself."""
    profiles = Profiles(folder, variables, named)
    assert (profiles.files, profiles.own) == (files, own)
    profiles.check(["extra"])


def test_what_compose_reads_by_itself_is_read_with_a_profile(folder: Path) -> None:
    """It is no profile."""
    (folder / "docker-compose.override.yml").touch()
    assert Profiles(folder, {}, ("gpu",)).files == [BASE, "docker-compose.override.yml", GPU]
    with pytest.raises(SettingsError, match="no profile 'override'; there is: extra, gpu, run-containers"):
        Profiles(folder, {}, ("override",)).check(["extra"])


@pytest.mark.parametrize(
    ("variables", "named", "message"),
    [
        ({}, ("gqu",), "no profile 'gqu'; there is: gpu, run-containers"),
        ({}, ("../x",), "no profile '../x'"),
        ({"COMPOSE_PROFILES": "gqu"}, (), "no profile 'gqu'"),
        ({"COMPOSE_FILE": BASE}, ("gpu",), f"{GPU} is wanted, and COMPOSE_FILE"),
        ({"COMPOSE_FILE": f"{BASE}:{GPU}", LAUNCHER: "docker"}, (), f"{RUNS} is wanted, and COMPOSE_FILE"),
    ],
)
def test_what_is_not_to_be_had_is_refused(
    folder: Path, variables: dict[str, str], named: tuple[str, ...], message: str
) -> None:
    """Compose passes over it."""
    with pytest.raises(SettingsError, match=message):
        Profiles(folder, variables, named).check([])


@pytest.mark.parametrize(
    ("wanted", "given", "is_right"),
    [("", "docker", True), ("warm", "warm", True), ("docker", "docker", True), ("warm", "docker", False)],
)
def test_the_launcher_is_the_one_that_was_asked_for(
    folder: Path, docker: FakeDocker, wanted: str, given: str, is_right: bool
) -> None:
    """By the environment, of the files."""
    services = {"a": {"environment": {LAUNCHER: "warm"}}, "prepare": {"environment": {LAUNCHER: given}}, "b": {}}
    docker.write("config", json.dumps({"services": services}))
    project = DockerProject(folder, {**docker.environ, LAUNCHER: wanted})
    if is_right:
        project.check()
    else:
        with pytest.raises(SettingsError, match=f"{LAUNCHER} is 'warm'"):
            project.check()


def test_a_launcher_that_there_is_not_is_refused(folder: Path, docker: FakeDocker) -> None:
    """The files would not notice."""
    docker.write("config", json.dumps({"services": {"prepare": {"environment": {LAUNCHER: "warm"}}}}))
    with pytest.raises(SettingsError, match="'dokcer'"):
        DockerProject(folder, {**docker.environ, LAUNCHER: "dokcer"}).check()


def test_only_what_starts_needs_to_be_told(folder: Path, docker: FakeDocker) -> None:
    """What ends goes by labels, whatever it was started with."""
    environ = {**docker.environ, "COMPOSE_PROJECT_NAME": "x", "COMPOSE_PROFILES": "extra"}
    project = DockerProject(folder, environ, ("gpu",))
    docker.write("started", "[]")
    for words in (("up", "--detach"), ("down", "--remove-orphans"), ("stop", "training")):
        project.compose(*words)
    options = f"--file {BASE} --file {GPU} --profile extra "
    assert [call.partition("--project-name x ")[2] for call in docker.calls()] == [
        f"{options}--ansi never --progress quiet up --detach",
        "--ansi never --progress quiet down --remove-orphans",
        "--ansi never --progress quiet stop training",
    ]
    assert "--file" not in project.logs("training", lines=5, follows=False)


def test_a_profile_without_docker_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no files to lay over anything."""
    (folder / "definitions.py").touch()
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(["up", "--profile", "gpu"])
    assert ended.value.code == 2


def _config(*files: str, **environ: str) -> dict[str, Any]:
    options = [word for file in files for word in ("--file", str(PROJECT / file))]
    argv = ["docker", "compose", *options, "config", "--format", "json"]
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(argv, cwd=PROJECT, env=path | environ, capture_output=True, check=True)
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


@needs_compose
@pytest.mark.parametrize(("environ", "count"), [({}, 1), ({"BONSEYES_GPUS": "3"}, 3)])
def test_the_training_alone_gets_a_gpu(environ: dict[str, str], count: int) -> None:
    """As Compose reads the file."""
    plain, services = _config(BASE), _config(BASE, GPU, **environ)
    resources = services["training"].pop("deploy")["resources"]
    assert resources == {"reservations": {"devices": [{"capabilities": ["gpu"], "driver": "nvidia", "count": count}]}}
    assert services == plain


@needs_compose
def test_the_launcher_of_runs_is_what_the_files_say() -> None:
    """A variable alone would have it look for a proxy that is not there."""
    asked = {LAUNCHER: "docker"}
    plain, changed = _config(BASE, **asked), _config(BASE, RUNS, **asked)
    assert {each["environment"].get(LAUNCHER) for each in plain.values() if "environment" in each} <= {None, "warm"}
    assert "socket-proxy" not in plain
    assert changed["prepare"]["environment"][LAUNCHER] == "docker"
    assert "socket-proxy" in changed


def test_the_launcher_does_not_hang_on_a_variable() -> None:
    """The same without Docker."""
    services = read_compose_model(PROJECT / BASE, {LAUNCHER: "docker"}).services
    assert services["prepare"].environment[LAUNCHER] == "warm"
