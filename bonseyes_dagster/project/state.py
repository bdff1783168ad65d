"""The state of a project that is up. A supervisor writes it to a file that `status`, `down` and a second `up` read."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import psutil

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.system.replacing import replace_file

__all__ = ["Lock", "ProjectState", "ServiceState", "State", "read_project_state", "write_json"]

State = Literal["waiting", "starting", "healthy", "unhealthy", "broken", "restarting", "stopped"]
Phase = Literal["starting", "up", "stopping"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """The state of one service: `seconds` from its start until it was healthy, `reason` why it is not healthy."""

    name: str
    kind: str
    state: State = "waiting"
    pid: int | None = None
    url: str | None = None
    seconds: float | None = None
    restarts: int = 0
    reason: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether a wait for it can end: it is healthy, or broken until somebody corrects its code."""
        return self.state in ("healthy", "broken")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectState:
    """The state of a project's services, and of their supervisor, which only an embedded project has.

    `process_start` distinguishes the supervisor from a later process with the same pid.
    """

    phase: Phase
    url: str
    seconds: float | None
    services: tuple[ServiceState, ...]
    pid: int | None = None
    process_start: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of the file."""
        return {**asdict(self), "services": [asdict(service) for service in self.services]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the JSON of `to_json`."""
        return cls(**{**data, "services": tuple(ServiceState(**entry) for entry in data["services"])})

    def process(self) -> psutil.Process | None:
        """Return the supervisor's process; None when it has ended."""
        if self.pid is None:
            return None
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.process_start) < 0.1
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    @property
    def is_healthy(self) -> bool:
        """Whether every service is healthy."""
        return all(service.state == "healthy" for service in self.services)

    @property
    def has_dagster(self) -> bool:
        """Whether Dagster's UI is one of the services."""
        return any(service.name == "dagster-webserver" for service in self.services)

    @property
    def broken(self) -> tuple[ServiceState, ...]:
        """The services whose code cannot be loaded; they cannot get healthy before somebody corrects it."""
        return tuple(service for service in self.services if service.state == "broken")

    @property
    def is_settled(self) -> bool:
        """Whether every service is healthy or broken."""
        return all(service.is_settled for service in self.services)


def read_project_state(project: Project) -> ProjectState | None:
    """Return the state of a project whose supervisor runs, or None; raise SettingsError when it is another user's."""
    try:
        project_state = ProjectState.from_json(json.loads(project.state_file.read_bytes()))
    except PermissionError as error:
        raise SettingsError(
            f"{project.state_folder} belongs to another user; only that user can run {project.name} or read its state. "
            "Copy the project to a folder that you own, or let that user run it."
        ) from error
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return project_state if project_state.process() is not None else None


def write_json(file: Path, body: object) -> None:
    """Replace `file` in one step, so that a reader sees either the old or the new content."""
    replace_file(file, f"{json.dumps(body, indent=2)}\n".encode())


class Lock:
    """The lock for one supervisor per project. The kernel releases it when its holder ends, also when it is killed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock if it is free; tell whether we hold it now."""
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def give_back(self) -> None:
        """Release the lock. In a forked child, close only the child's copy: the parent keeps the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
