"""A project as containers: what it is to consist of, and how it is started, watched and ended through Compose."""

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
# To find out whether the project is up in Docker must not hold up a command for long.
_NOTICE_S = 5.0
_STOP_S = 90.0
_CONFIG_S = 30.0
# What starts runs' processes, or is where they are: these end first. Told that their tools are gone, runs would
# try again and in the end fail; killed, they are taken up again at the next start.
_LAUNCHING = (RUNS, DAEMON, CODE)
_TAIL_LINES = 30
_LAST_LINES = 15
_QUIET = ("--ansi", "never", "--progress", "quiet")
# Compose writes it before each line of a log, be there a terminal or not, whatever it is told.
CLEAR_LINE = "\x1b[2K"
# The others go by the labels of what there is.
_READING = ("config", "create", "up")
_LAUNCHER = "BONSEYES_RUN_LAUNCHER"


@dataclass(frozen=True)
class DockerProject:
    """The project in `folder` on the Docker engine; `environ` is what Compose fills its variables in from.

    It is started with those and `profiles`; what is there goes by its labels, whatever it was started with.
    """

    folder: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    profiles: tuple[str, ...] = ()

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """Return what Compose knows: `environ`, and below it the project's `.env`."""
        return compose_environ(self.folder, self.environ)

    @cached_property
    def name(self) -> str:
        """Return what Compose calls the project."""
        return project_name(self.folder, self.environ)

    def check_name(self) -> None:
        """Raise SettingsError when the name is not chosen, and what there is of it may be another folder's."""
        if not self.variables.get("COMPOSE_PROJECT_NAME"):
            DefaultName(self.folder).check()

    def moved(self) -> list[str]:
        """Return the projects that may be this one's of before its folder was moved."""
        return [] if self.variables.get("COMPOSE_PROJECT_NAME") else DefaultName(self.folder).moved()

    @cached_property
    def _wanted(self) -> Profiles:
        return Profiles(self.folder, self.variables, self.profiles)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Return the whole configuration, as Compose reads it; raise SettingsError with what it says is wrong."""
        try:
            config: Mapping[str, Any] = json.loads(self.compose("config", "--format", "json", timeout_s=_CONFIG_S))
        except EngineRefusedCommandError as error:
            raise SettingsError(f"{COMPOSE_FILE} is not as Compose wants it: {error.message}") from None
        return config

    @property
    def services(self) -> list[str]:
        """Return the services that there are to be."""
        return sorted(self.config["services"])

    def address(self) -> tuple[str, int]:
        """Return where on this machine the gateway is to listen."""
        for service in self.config["services"].values():
            for port in service.get("ports") or ():
                return port.get("host_ip", ""), int(port["published"])
        raise SettingsError(f"{COMPOSE_FILE} publishes no port.")

    def token(self) -> str:
        """Return the secret that the gateway is to ask for."""
        values = (service.get("environment") or {} for service in self.config["services"].values())
        return next((each["BONSEYES_TOKEN"] for each in values if each.get("BONSEYES_TOKEN")), "")

    def missing_images(self) -> list[str]:
        """Return the images that the project builds itself and the engine does not have."""
        ours = {image.repository for image in read_images(self.folder, self.variables).values()}
        wanted = {str(service["image"]) for service in self.config["services"].values()}
        there = set(docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split())
        return sorted(image for image in wanted if repository_of(image) in ours and image not in there)

    def containers(self) -> list[ServiceContainer]:
        """Return the containers that there are; raise SettingsError for those of another folder's project."""
        found = find_containers(self.name)
        if strange := {each.folder for each in found} - {self.folder.resolve()}:
            raise SettingsError(
                f"Docker has a project {self.name!r} of another folder, {', '.join(map(str, strange))}: "
                "set COMPOSE_PROJECT_NAME to another name."
            )
        return found

    def state(self) -> ProjectState | None:
        """Return how the services are, None when the project is not up."""
        containers = self.containers()
        if not _is_up(containers):
            return None
        return project_state_of(containers, url=url_of(containers, ""), expected=self.services)

    def watch(self) -> Watch:
        """Return what looks at the project again and again."""
        return Watch(self.containers, self.services)

    # --- starting

    def check(self) -> None:
        """Raise SettingsError when the compose files do not give what is wanted: a profile, or the launcher of runs."""
        wanted = self._wanted
        wanted.check(self.compose("config", "--profiles", timeout_s=_CONFIG_S).split() if wanted.own else [])
        launcher = self.variables.get(_LAUNCHER)
        given = {(each.get("environment") or {}).get(_LAUNCHER) for each in self.config["services"].values()} - {None}
        # All services say the one of docker-compose.yml, those whom it matters to what is laid over it.
        if launcher and given and launcher not in (given - {"warm"} or given):
            raise SettingsError(
                f"{_LAUNCHER} is {launcher!r}, and the compose files do not give that: "
                "'warm' is what docker-compose.yml has, 'docker' what the profile run-containers lays over it."
            )

    def start(self, on_state: Callable[[ProjectState], None], timeout_s: float = START_S) -> ProjectState | None:
        """Bring everything up, also what was stopped; return the state once all is healthy, None if it takes too long.

        Raises EngineRefusedCommandError with Compose's own words when a container cannot be started.
        """
        watch = self.watch()
        with tempfile.TemporaryFile("w+") as said, self._starting(said) as process:
            while time.monotonic() - watch.begun_s < timeout_s:
                code = process.poll()
                project_state = watch.look()
                on_state(project_state)
                if code:
                    raise EngineRefusedCommandError(f"Docker could not start the project:\n{_tail(said)}")
                if code == 0 and project_state.seconds is not None:
                    return project_state
                time.sleep(_POLL_S)
        return None

    @contextmanager
    def _starting(self, said: IO[str]) -> Iterator[subprocess.Popen[str]]:
        """Run `docker compose up`; it waits for what must be done before others start."""
        process = subprocess.Popen(
            self._argv("up", "--detach", "--no-build", "--remove-orphans"),
            cwd=self.folder.resolve(),
            env=dict(self.environ),
            stdin=subprocess.DEVNULL,
            stdout=said,
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
        """End everything and remove the containers, what was made is kept; tell whether there was anything."""
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
        """Remove the containers of runs, which Compose leaves, and with them volumes; tell whether there were any."""
        labels = (f"com.docker.compose.project={self.name}", "com.docker.compose.oneoff=True")
        if found := docker("ps", "--all", "--quiet", *(f"--filter=label={label}" for label in labels)).split():
            with suppress(UnavailableError):  # it may have gone by itself
                docker("rm", "--force", *found)
        return bool(found)

    def volumes(self) -> list[str]:
        """Return the volumes that `stop` can remove."""
        return sorted(str(volume["name"]) for volume in self.config["volumes"].values())

    def logs(self, service: str | None, *, lines: int, follows: bool) -> list[str]:
        """Return the command line that prints the logs of all services, or of one."""
        options = [f"--tail={lines}", *(["--follow"] if follows else [])]
        return compose_argv("logs", *options, *(["--no-log-prefix", service] if service else []), project=self.name)

    def last_words(self, services: Collection[str]) -> str:
        """Return the last lines that the services logged."""
        said = self.compose("logs", "--no-color", f"--tail={_LAST_LINES}", *services) if services else ""
        return said.replace(CLEAR_LINE, "")

    def compose(self, *arguments: str, timeout_s: float = _STOP_S) -> str:
        """Return what `docker compose ARGUMENTS` prints, as `docker` does."""
        return docker(
            *self._argv(*arguments)[1:],
            name=f"docker compose {arguments[0]}",
            folder=self.folder.resolve(),
            environ=self.environ,
            timeout_s=timeout_s,
        )

    def _argv(self, *arguments: str) -> list[str]:
        """Return a command line of Compose's, with the files to be read where it reads any."""
        if arguments[0] not in _READING:
            return compose_argv(*_QUIET, *arguments, project=self.name)
        files, profiles = self._wanted.files, self._wanted.own
        return compose_argv(*_QUIET, *arguments, project=self.name, files=files, profiles=profiles)


def is_in_docker(folder: Path) -> bool:
    """Tell whether the project has containers here, be they stopped; where Docker does not answer, it has none."""
    return bool(_noticed(folder))


def is_up_in_docker(folder: Path) -> bool:
    """Tell whether containers of the project run here."""
    return _is_up(_noticed(folder))


def _noticed(folder: Path) -> list[ServiceContainer]:
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


def _tail(said: IO[str]) -> str:
    said.seek(0)
    return "\n".join(said.read().strip().splitlines()[-_TAIL_LINES:])
