"""The containers of a project on the Docker engine, as the services that `bonseyes status` shows."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from bonseyes_dagster.docker.engine import docker
from bonseyes_dagster.docker.naming import FOLDER, PROJECT
from bonseyes_dagster.errors import UnavailableError
from bonseyes_dagster.project.service_names import CONTAINER_KINDS, WEB
from bonseyes_dagster.project.state import ProjectState, ServiceState, State

__all__ = ["GATEWAY", "ServiceContainer", "find_containers", "project_state_of", "url_of"]

GATEWAY = "gateway"
_GATEWAY_PORT = "8080/tcp"
_SERVICE = "com.docker.compose.service"
_ONE_OFF = "com.docker.compose.oneoff"
_MODULE = "bonseyes_dagster."
_HEALTH: Mapping[str, State] = {"healthy": "healthy", "starting": "starting", "unhealthy": "unhealthy"}
# Between `docker ps` and `docker inspect`, a container may be removed.
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ServiceContainer:
    """One container of the project, as the engine describes it."""

    raw: Mapping[str, Any]

    @property
    def service(self) -> str:
        """The name of its service; also its name in URLs."""
        return self._label(_SERVICE)

    @property
    def project(self) -> str:
        """The name of the Compose project."""
        return self._label(PROJECT)

    @property
    def kind(self) -> str:
        """The kind of its service, by the module that it runs: `tool`, `pipeline`, `dashboard`, `gateway`, ..."""
        if self.service == GATEWAY:
            return GATEWAY
        words = [*(self.raw["Config"]["Cmd"] or ())]
        modules = [word.removeprefix(_MODULE) for word in words if word.startswith(_MODULE)]
        return next((module for module in modules if module in CONTAINER_KINDS), "dagster")

    @property
    def folder(self) -> Path:
        """The project folder that started it. Compose stores the path of the shell, which may lead through links."""
        return Path(self._label(FOLDER)).resolve()

    @property
    def identity(self) -> str:
        """A text that differs for each container and each of its starts."""
        return f"{self.raw['Id']} {self.raw['State']['StartedAt']}"

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or will run by itself."""
        return self._status in ("created", "running", "restarting", "paused")

    @property
    def is_task(self) -> bool:
        """Whether it is a one-shot service, which does its work and ends."""
        return self.raw["HostConfig"]["RestartPolicy"]["Name"] in ("no", "on-failure", "")

    @property
    def is_done(self) -> bool:
        """Whether it is a one-shot service that has ended successfully."""
        return self.is_task and self._status == "exited" and self.raw["State"]["ExitCode"] == 0

    @property
    def started(self) -> datetime:
        """The time of its last start."""
        return datetime.fromisoformat(self.raw["State"]["StartedAt"])

    @property
    def state(self) -> State:
        """Its state, as for a service of an embedded project."""
        if self._status == "running":
            return _HEALTH.get(self._health.get("Status", ""), "starting" if self.is_task else "healthy")
        return "restarting" if self._status == "restarting" else "waiting" if self._status == "created" else "stopped"

    @property
    def reason(self) -> str | None:
        """The reason why it is not healthy."""
        if self._status == "paused":
            return "paused"
        if self.state in ("stopped", "restarting"):
            error = self.raw["State"]["Error"] or f"exited with code {self.raw['State']['ExitCode']}"
            return str(error).strip()
        checks = self._health.get("Log") or []
        if self.state == "unhealthy" and checks:
            return _reason_of(checks[-1]["Output"])
        return None

    @property
    def restarts(self) -> int:
        """How often the engine has restarted it."""
        return int(self.raw.get("RestartCount", 0))

    @property
    def published(self) -> tuple[str, int] | None:
        """The address and port on this machine that lead to the gateway."""
        ports = self.raw["NetworkSettings"]["Ports"] or self.raw["HostConfig"]["PortBindings"] or {}
        for binding in ports.get(_GATEWAY_PORT) or ():
            return binding["HostIp"], int(binding["HostPort"])
        return None

    @property
    def _status(self) -> str:
        return str(self.raw["State"]["Status"])

    @property
    def _health(self) -> Mapping[str, Any]:
        return self.raw["State"].get("Health") or {}

    def _label(self, name: str) -> str:
        return str((self.raw["Config"]["Labels"] or {}).get(name, ""))

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self | None:
        """Return a service's container; None for a container of a run, which Compose did not start."""
        found = cls(raw)
        return found if found.service and found._label(_ONE_OFF) != "True" else None


def find_containers(project: str, *, timeout_s: float = 60.0) -> list[ServiceContainer]:
    """Return the containers of a Compose project's services."""
    for attempt in range(_ATTEMPTS):
        ids = docker(
            "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={PROJECT}={project}", timeout_s=timeout_s
        ).split()
        try:
            found = json.loads(docker("inspect", *ids, timeout_s=timeout_s)) if ids else []
            return sorted(filter(None, map(ServiceContainer.of, found)), key=lambda each: each.service)
        except UnavailableError:
            if attempt == _ATTEMPTS - 1:
                raise
    return []


def url_of(containers: Collection[ServiceContainer], default: str) -> str:
    """Return the URL of the project's gateway; `default` without a published gateway."""
    for container in containers:
        if container.service == GATEWAY and container.published is not None:
            host, port = container.published
            host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared
            return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return default


def project_state_of(
    containers: Collection[ServiceContainer],
    *,
    url: str,
    expected: Collection[str] = (),
    seconds_of: Mapping[str, float] | None = None,
) -> ProjectState:
    """Return the state of the project; `expected` are the services of its compose files.

    `seconds_of` has the seconds that a service took to get healthy, if a `Watch` measured them.
    """
    found = {each.service: each for each in containers}
    services = [
        _service(name, found.get(name), url, (seconds_of or {}).get(name))
        for name in [*(name for name in expected), *(name for name in found if name not in expected)]
        if name not in found or not found[name].is_done
    ]
    is_up = bool(found) and all(service.state != "waiting" for service in services)
    return ProjectState(phase="up" if is_up else "starting", url=url, seconds=None, services=tuple(services))


def _service(name: str, container: ServiceContainer | None, url: str, seconds: float | None) -> ServiceState:
    if container is None:
        return ServiceState(name=name, kind="")
    return ServiceState(
        name=name,
        kind=container.kind,
        state=container.state,
        url=_published(container, url),
        seconds=seconds,
        restarts=container.restarts,
        reason=container.reason,
    )


def _published(container: ServiceContainer, url: str) -> str | None:
    if container.kind in (GATEWAY, "dashboard"):
        return f"{url}/"
    if container.service == WEB:
        return f"{url}/dagster/"
    return f"{url}/containers/{container.service}/" if container.kind in CONTAINER_KINDS else None


def _reason_of(output: str) -> str:
    """Return the last line that a health check printed; if it is an error answer, return its message."""
    line = (output.strip().splitlines() or [""])[-1]
    try:
        return str(json.loads(line)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return line or "does not answer"
