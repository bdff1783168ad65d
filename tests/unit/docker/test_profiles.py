"""The compose files that a docker project starts with; unknown profiles and launchers are refused."""

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
    """A folder with this project's compose files."""
    folder = tmp_path / "project"
    folder.mkdir()
    for file in (BASE, GPU, RUNS):
        shutil.copy(PROJECT / file, folder)
    return folder


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """Put a fake `docker` command on the path."""
    docker = FakeDocker(tmp_path)
    monkeypatch.setenv("PATH", docker.environ["PATH"])
    return docker


@pytest.mark.parametrize(
    ("variables", "named", "files", "without_file"),
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
def test_profile_is_a_file_or_a_profile_of_compose(
    folder: Path, variables: dict[str, str], named: tuple[str, ...], files: list[str], without_file: list[str]
) -> None:
    """Files are listed only when Compose does not find them by itself."""
    profiles = Profiles(folder, variables, named)
    assert (profiles.files, profiles.without_file) == (files, without_file)
    profiles.check(["extra"])


def test_override_file_is_read_with_a_profile(folder: Path) -> None:
    """Compose reads docker-compose.override.yml by itself; it is not a profile."""
    (folder / "docker-compose.override.yml").touch()
    assert Profiles(folder, {}, ("gpu",)).files == [BASE, "docker-compose.override.yml", GPU]
    with pytest.raises(SettingsError, match="no profile 'override'; the profiles are: extra, gpu, run-containers"):
        Profiles(folder, {}, ("override",)).check(["extra"])


@pytest.mark.parametrize(
    ("variables", "named", "message"),
    [
        ({}, ("gqu",), "no profile 'gqu'; the profiles are: gpu, run-containers"),
        ({}, ("../x",), "no profile '../x'"),
        ({"COMPOSE_PROFILES": "gqu"}, (), "no profile 'gqu'"),
        ({"COMPOSE_FILE": BASE}, ("gpu",), f"needs {GPU}, but COMPOSE_FILE"),
        ({"COMPOSE_FILE": f"{BASE}:{GPU}", LAUNCHER: "docker"}, (), f"needs {RUNS}, but COMPOSE_FILE"),
    ],
)
def test_unknown_profile_and_unlisted_file_are_refused(
    folder: Path, variables: dict[str, str], named: tuple[str, ...], message: str
) -> None:
    """Compose would silently ignore both."""
    with pytest.raises(SettingsError, match=message):
        Profiles(folder, variables, named).check([])


@pytest.mark.parametrize(
    ("wanted", "given", "is_right"),
    [("", "docker", True), ("warm", "warm", True), ("docker", "docker", True), ("warm", "docker", False)],
)
def test_launcher_of_the_files_must_match_the_environment(
    folder: Path, docker: FakeDocker, wanted: str, given: str, is_right: bool
) -> None:
    """A user who sets the variable expects this launcher."""
    services = {"a": {"environment": {LAUNCHER: "warm"}}, "prepare": {"environment": {LAUNCHER: given}}, "b": {}}
    docker.write("config", json.dumps({"services": services}))
    project = DockerProject(folder, {**docker.environ, LAUNCHER: wanted})
    if is_right:
        project.check()
    else:
        with pytest.raises(SettingsError, match=f"{LAUNCHER} is 'warm'"):
            project.check()


def test_unknown_launcher_is_refused(folder: Path, docker: FakeDocker) -> None:
    """The compose files would ignore a misspelt launcher."""
    docker.write("config", json.dumps({"services": {"prepare": {"environment": {LAUNCHER: "warm"}}}}))
    with pytest.raises(SettingsError, match="'dokcer'"):
        DockerProject(folder, {**docker.environ, LAUNCHER: "dokcer"}).check()


def test_only_a_start_passes_files_and_profiles(folder: Path, docker: FakeDocker) -> None:
    """Other commands find containers by their labels, whatever files they were started with."""
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


def test_profile_of_an_embedded_project_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded project reads no compose files."""
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
def test_only_the_training_gets_a_gpu(environ: dict[str, str], count: int) -> None:
    """Compose itself reads the files."""
    plain, services = _config(BASE), _config(BASE, GPU, **environ)
    resources = services["training"].pop("deploy")["resources"]
    assert resources == {"reservations": {"devices": [{"capabilities": ["gpu"], "driver": "nvidia", "count": count}]}}
    assert services == plain


@needs_compose
def test_launcher_comes_from_the_files_not_from_the_variable() -> None:
    """With the variable alone, the launcher would look for a proxy that does not run."""
    environ = {LAUNCHER: "docker"}
    plain, changed = _config(BASE, **environ), _config(BASE, RUNS, **environ)
    assert {each["environment"].get(LAUNCHER) for each in plain.values() if "environment" in each} <= {None, "warm"}
    assert "socket-proxy" not in plain
    assert changed["prepare"]["environment"][LAUNCHER] == "docker"
    assert "socket-proxy" in changed


def test_launcher_does_not_depend_on_a_variable() -> None:
    """This is the same claim, on a machine without Docker."""
    services = read_compose_model(PROJECT / BASE, {LAUNCHER: "docker"}).services
    assert services["prepare"].environment[LAUNCHER] == "warm"
