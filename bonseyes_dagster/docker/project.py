"""A project in Docker: its configuration, and its start, state and end through Compose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from bonseyes_dagster.docker.compose.files import COMPOSE_FILE, read_images, repository_of
from bonseyes_dagster.docker.containers import ServiceContainer, find_containers, project_state_of, url_of
from bonseyes_dagster.docker.engine import EngineRefusedCommandError, compose_argv, docker
from bonseyes_dagster.docker.naming import DefaultName, name_with_containers, project_name
from bonseyes_dagster.docker.profiles import Profiles
from bonseyes_dagster.docker.watch import Watch
from bonseyes_dagster.errors import SettingsError, UnavailableError
from bonseyes_dagster.project.environment import compose_environ
from bonseyes_dagster.project.service_names import CODE, DAEMON, RUNS
from bonseyes_dagster.project.state import ProjectState

__all__ = ["CLEAR_LINE", "START_S", "DockerProject", "is_in_docker", "is_up_in_docker"]

START_S = 240.0
_POLL_S = 0.5
# The check whether a project is up in Docker must not delay other commands for long.
_NOTICE_S = 5.0
_STOP_S = 90.0
_CONFIG_S = 30.0
# These services start the processes of runs, or hold them, so they end first. If the tools ended first, runs would
# retry and finally fail; a killed run is resumed at the next start.
_LAUNCHING = (RUNS, DAEMON, CODE)
_TAIL_LINES = 30
_LAST_LINES = 15
_QUIET = ("--ansi", "never", "--progress", "quiet")
# Compose writes this sequence before each line of a log, with every option, even without a terminal.
CLEAR_LINE = "\x1b[2K"
# These sub-commands read the compose files; the others find the containers by their labels.
_READING = ("config", "create", "up")
_LAUNCHER = "BONSEYES_RUN_LAUNCHER"


@dataclass(frozen=True)
class DockerProject:
    """The project in `folder` on the Docker engine; Compose reads its variables from `environ`.

    A start uses `environ` and `profiles`. All other methods find containers by their labels.
    """

    folder: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    profiles: tuple[str, ...] = ()

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """Return Compose's variables: `environ`, and below it the project's `.env`."""
        return compose_environ(self.folder, self.environ)

    @cached_property
    def name(self) -> str:
        """Return the Compose name of the project."""
        return project_name(self.folder, self.environ)

    def check_name(self) -> None:
        """Raise SettingsError when the name is a default, and volumes of that name may belong to another folder."""
        if not self.variables.get("COMPOSE_PROJECT_NAME"):
            DefaultName(self.folder).check()

    def former_names(self) -> list[str]:
        """Return the names that this project may have had before its folder was moved."""
        return [] if self.variables.get("COMPOSE_PROJECT_NAME") else DefaultName(self.folder).former_names()

    @cached_property
    def _selected(self) -> Profiles:
        return Profiles(self.folder, self.variables, self.profiles)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Return the whole configuration, as Compose reads it; raise SettingsError with Compose's error."""
        try:
            config: Mapping[str, Any] = json.loads(self.compose("config", "--format", "json", timeout_s=_CONFIG_S))
        except EngineRefusedCommandError as error:
            raise SettingsError(f"Compose refuses {COMPOSE_FILE}: {error.message}") from None
        return config

    @property
    def services(self) -> list[str]:
        """Return the names of the services in the compose files."""
        return sorted(self.config["services"])

    def address(self) -> tuple[str, int]:
        """Return the host and port of this machine that the gateway will publish."""
        for service in self.config["services"].values():
            for port in service.get("ports") or ():
                return port.get("host_ip", ""), int(port["published"])
        raise SettingsError(f"{COMPOSE_FILE} publishes no port.")

    def token(self) -> str:
        """Return the gateway's token; an empty text without one."""
        values = (service.get("environment") or {} for service in self.config["services"].values())
        return next((each["BONSEYES_TOKEN"] for each in values if each.get("BONSEYES_TOKEN")), "")

    def missing_images(self) -> list[str]:
        """Return the images that the project builds and the engine lacks."""
        ours = {image.repository for image in read_images(self.folder, self.variables).values()}
        wanted = {str(service["image"]) for service in self.config["services"].values()}
        there = set(docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split())
        return sorted(image for image in wanted if repository_of(image) in ours and image not in there)

    def containers(self) -> list[ServiceContainer]:
        """Return the existing containers; raise SettingsError when they belong to another folder."""
        found = find_containers(self.name)
        if others := {each.folder for each in found} - {self.folder.resolve()}:
            raise SettingsError(
                f"Docker has a project {self.name!r} of another folder, {', '.join(map(str, others))}: "
                "set COMPOSE_PROJECT_NAME to another name."
            )
        return found

    def state(self) -> ProjectState | None:
        """Return the state of the project; None when it is not up."""
        containers = self.containers()
        if not _is_up(containers):
            return None
        return project_state_of(containers, url=url_of(containers, ""), expected=self.services)

    def watch(self) -> Watch:
        """Return an object that reads the state of the project repeatedly."""
        return Watch(self.containers, self.services)

    # --- starting

    def check(self) -> None:
        """Raise SettingsError when the compose files lack a selected profile, or the selected launcher of runs."""
        selected = self._selected
        names = self.compose("config", "--profiles", timeout_s=_CONFIG_S).split() if selected.without_file else []
        selected.check(names)
        launcher = self.variables.get(_LAUNCHER)
        given = {(each.get("environment") or {}).get(_LAUNCHER) for each in self.config["services"].values()} - {None}
        # Most services have the launcher of docker-compose.yml; a few have that of the override, and these decide.
        if launcher and given and launcher not in (given - {"warm"} or given):
            raise SettingsError(
                f"{_LAUNCHER} is {launcher!r}, which the compose files do not provide; "
                "docker-compose.yml provides 'warm', and the profile run-containers 'docker'."
            )

    def start(self, on_state: Callable[[ProjectState], None], timeout_s: float = START_S) -> ProjectState | None:
        """Start all services, also stopped ones; return the state when all are healthy, None after `timeout_s`.

        Raises EngineRefusedCommandError with Compose's output when a container cannot start.
        """
        watch = self.watch()
        with tempfile.TemporaryFile("w+") as output, self._starting(output) as process:
            while time.monotonic() - watch.begun_s < timeout_s:
                code = process.poll()
                project_state = watch.look()
                on_state(project_state)
                if code:
                    raise EngineRefusedCommandError(f"Docker could not start the project:\n{_tail(output)}")
                if code == 0 and project_state.seconds is not None:
                    return project_state
                time.sleep(_POLL_S)
        return None

    @contextmanager
    def _starting(self, output: IO[str]) -> Iterator[subprocess.Popen[str]]:
        """Run `docker compose up`, which also waits for the services that others depend on."""
        process = subprocess.Popen(
            self._argv("up", "--detach", "--no-build", "--remove-orphans"),
            cwd=self.folder.resolve(),
            env=dict(self.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()

    # --- ending

    def stop(self, *, with_volumes: bool = False, at_once: bool = False) -> bool:
        """End all services and remove the containers, but keep the volumes; tell whether there were containers."""
        containers = self.containers()
        alive = {each.service for each in containers if each.is_alive}
        first = [name for name in _LAUNCHING if name in alive]
        if first and not at_once:
            self.compose("stop", *first)
        had_runs = self._remove_runs()
        if not containers and not with_volumes:
            return had_runs
        options = [*(["--volumes"] if with_volumes else []), *(["--timeout=0"] if at_once else [])]
        self.compose("down", "--remove-orphans", *options)
        return bool(containers)

    def _remove_runs(self) -> bool:
        """Remove the containers of runs, which Compose leaves and which block volumes; tell whether there were any."""
        labels = (f"com.docker.compose.project={self.name}", "com.docker.compose.oneoff=True")
        if found := docker("ps", "--all", "--quiet", *(f"--filter=label={label}" for label in labels)).split():
            with suppress(UnavailableError):  # the container may be gone already
                docker("rm", "--force", *found)
        return bool(found)

    def volumes(self) -> list[str]:
        """Return the names of the volumes that `stop` can remove."""
        return sorted(str(volume["name"]) for volume in self.config["volumes"].values())

    def logs(self, service: str | None, *, lines: int, follows: bool) -> list[str]:
        """Return the command line that prints the logs of all services, or of one."""
        options = [f"--tail={lines}", *(["--follow"] if follows else [])]
        return compose_argv("logs", *options, *(["--no-log-prefix", service] if service else []), project=self.name)

    def last_log_lines(self, services: Collection[str]) -> str:
        """Return the last lines of the services' logs."""
        output = self.compose("logs", "--no-color", f"--tail={_LAST_LINES}", *services) if services else ""
        return output.replace(CLEAR_LINE, "")

    def compose(self, *arguments: str, timeout_s: float = _STOP_S) -> str:
        """Return the output of `docker compose ARGUMENTS`; raise the errors of `docker`."""
        return docker(
            *self._argv(*arguments)[1:],
            name=f"docker compose {arguments[0]}",
            folder=self.folder.resolve(),
            environ=self.environ,
            timeout_s=timeout_s,
        )

    def _argv(self, *arguments: str) -> list[str]:
        """Return a command line of Compose, with the files and profiles if the sub-command reads files."""
        if arguments[0] not in _READING:
            return compose_argv(*_QUIET, *arguments, project=self.name)
        files, profiles = self._selected.files, self._selected.without_file
        return compose_argv(*_QUIET, *arguments, project=self.name, files=files, profiles=profiles)


def is_in_docker(folder: Path) -> bool:
    """Tell whether the project has containers here, running or stopped; False when Docker does not answer."""
    return bool(_own_containers(folder))


def is_up_in_docker(folder: Path) -> bool:
    """Tell whether containers of the project run here."""
    return _is_up(_own_containers(folder))


def _own_containers(folder: Path) -> list[ServiceContainer]:
    if shutil.which("docker") is None or not (folder / COMPOSE_FILE).exists():
        return []
    try:
        name = name_with_containers(folder, os.environ, timeout_s=_NOTICE_S)
        found = find_containers(name, timeout_s=_NOTICE_S) if name else []
    except UnavailableError:
        return []
    return [each for each in found if each.folder == folder.resolve()]


def _is_up(containers: Sequence[ServiceContainer]) -> bool:
    return any(container.is_alive for container in containers)


def _tail(output: IO[str]) -> str:
    output.seek(0)
    return "\n".join(output.read().strip().splitlines()[-_TAIL_LINES:])
