"""A project as containers: what it is to consist of, and how it is started, watched and ended through Compose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from bonseyes_dagster.deployment.compose import DEPLOY_FILE, read_images, repository_of
from bonseyes_dagster.deployment.containers import Container, find_containers, project_name, record_of, url_of
from bonseyes_dagster.deployment.engine import compose_argv, docker
from bonseyes_dagster.deployment.environment import compose_environ
from bonseyes_dagster.deployment.watch import Watch
from bonseyes_dagster.errors import SettingsError, UnavailableError
from bonseyes_dagster.local.record import Record
from bonseyes_dagster.local.services import CODE, DAEMON, RUNS

__all__ = ["START_S", "ComposedProject", "is_in_docker", "is_up_in_docker"]

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
_QUIET = ("--ansi", "never", "--progress", "quiet")
# Files that are read as well when the environment says so.
_OVERRIDES: Mapping[str, Callable[[Mapping[str, str]], bool]] = {
    "docker-compose.run-containers.yml": lambda environ: environ.get("BONSEYES_RUN_LAUNCHER") == "docker",
    "docker-compose.gpu.yml": lambda environ: bool(environ.get("BONSEYES_GPUS")),
}


@dataclass(frozen=True)
class ComposedProject:
    """The project in `folder` on the Docker engine; `environ` is what Compose fills its variables in from."""

    folder: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """Return what Compose knows: `environ`, and below it the project's `.env`."""
        return compose_environ(self.folder, self.environ)

    @cached_property
    def name(self) -> str:
        """Return what Compose calls the project."""
        return project_name(self.folder, self.environ)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Return the whole configuration, as Compose reads it; raise SettingsError with what it says is wrong."""
        done = self._run("config", "--format", "json", timeout_s=_CONFIG_S)
        if done.returncode != 0:
            raise SettingsError(f"{DEPLOY_FILE} is not as Compose wants it: {done.stderr.strip()}")
        config: Mapping[str, Any] = json.loads(done.stdout)
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
        raise SettingsError(f"{DEPLOY_FILE} publishes no port.")

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

    def containers(self) -> list[Container]:
        """Return the containers that there are; raise SettingsError for those of another folder's project."""
        found = find_containers(self.name)
        if strange := {each.folder for each in found} - {self.folder.resolve()}:
            raise SettingsError(
                f"Docker has a project {self.name!r} of another folder, {', '.join(map(str, strange))}: "
                "set COMPOSE_PROJECT_NAME to another name."
            )
        return found

    def record(self) -> Record | None:
        """Return how the services are, None when the project is not up."""
        containers = self.containers()
        if not _is_up(containers):
            return None
        return record_of(containers, url=url_of(containers, ""), expected=self.services)

    def watch(self) -> Watch:
        """Return what looks at the project again and again."""
        return Watch(self.containers, self.services)

    # --- starting

    def start(self, on_record: Callable[[Record], None], timeout_s: float = START_S) -> Record | None:
        """Bring everything up, also what was stopped; return the record once all is healthy, None if it takes too long.

        Raises UnavailableError with Compose's own words when a container cannot be started.
        """
        watch = self.watch()
        with tempfile.TemporaryFile("w+") as said, self._starting(said) as process:
            while time.monotonic() - watch.begun_s < timeout_s:
                code = process.poll()
                record = watch.look()
                on_record(record)
                if code:
                    raise UnavailableError(
                        f"Docker could not start the project; `bonseyes logs SERVICE` tells more:\n{_tail(said)}"
                    )
                if code == 0 and record.seconds is not None:
                    return record
                time.sleep(_POLL_S)
        return None

    @contextmanager
    def _starting(self, said: IO[str]) -> Iterator[subprocess.Popen[str]]:
        """Run `docker compose up`; it waits for what must be done before others start."""
        process = subprocess.Popen(
            self._argv(*_QUIET, "up", "--detach", "--no-build", "--remove-orphans"),
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
            self._compose("stop", *first)
        had_runs = self._remove_runs()
        if not containers and not with_volumes:
            return had_runs
        options = [*(["--volumes"] if with_volumes else []), *(["--timeout=0"] if at_once else [])]
        self._compose("down", "--remove-orphans", *options)
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
        return self._argv("logs", *options, *(["--no-log-prefix", service] if service else []))

    def _compose(self, *arguments: str) -> None:
        done = self._run(*_QUIET, *arguments, timeout_s=_STOP_S)
        if done.returncode != 0:
            raise UnavailableError(f"Docker Compose could not do it: {(done.stderr or done.stdout).strip()}")

    def _run(self, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        argv, folder = self._argv(*arguments), self.folder.resolve()
        try:
            return subprocess.run(
                argv,
                cwd=folder,
                env=dict(self.environ),
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except FileNotFoundError:
            raise UnavailableError("There is no `docker` command on this machine.") from None
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"`{' '.join(argv)}` did not end within {timeout_s:.0f} s.") from None

    def _argv(self, *arguments: str) -> list[str]:
        return compose_argv(*arguments, project=self.name, files=self._files())

    def _files(self) -> list[str]:
        """Return the compose files where they are not those that Compose would read by itself."""
        if self.variables.get("COMPOSE_FILE"):
            return []
        more = [file for file, is_wanted in _OVERRIDES.items() if is_wanted(self.variables)]
        return [DEPLOY_FILE, *more] if more else []


def is_in_docker(folder: Path) -> bool:
    """Tell whether the project has containers here, be they stopped; where Docker does not answer, it has none."""
    return bool(_noticed(folder))


def is_up_in_docker(folder: Path) -> bool:
    """Tell whether containers of the project run here."""
    return _is_up(_noticed(folder))


def _noticed(folder: Path) -> list[Container]:
    if shutil.which("docker") is None or not (folder / DEPLOY_FILE).exists():
        return []
    try:
        found = find_containers(project_name(folder, os.environ), timeout_s=_NOTICE_S)
    except UnavailableError:
        return []
    return [each for each in found if each.folder == folder.resolve()]


def _is_up(containers: Sequence[Container]) -> bool:
    return any(container.is_alive for container in containers)


def _tail(said: IO[str]) -> str:
    said.seek(0)
    return "\n".join(said.read().strip().splitlines()[-_TAIL_LINES:])
